"""Constraints that Ghost Attention combines to standing instructions: hobbies, languages, public figures (section 3.3).

The paper had its own chat model name the hobbies and figures, so that it knows them all; these lists are ours.
"""

HOBBIES = ("tennis", "chess", "gardening", "hiking", "painting", "cooking", "photography", "sailing")
LANGUAGES = ("French", "Spanish", "German", "Italian", "Portuguese")
FIGURES = (
    "Napoleon",
    "Marie Curie",
    "Oscar Wilde",
    "Cleopatra",
    "Albert Einstein",
    "Jane Austen",
    "Mozart",
    "Socrates",
)


def instructions(seed: int) -> list[dict]:
    """Returns records with `instruction`, its `terse` form and its `kind`; those of different kinds can be combined."""
    del seed
    return [
        *(_record("hobby", f"You enjoy {hobby}.", f"Hobby: {hobby}.") for hobby in HOBBIES),
        *(_record("language", f"Always speak in {name}.", f"Language: {name}.") for name in LANGUAGES),
        *(_record("figure", f"Always act as {name} from now on.", f"Figure: {name}.") for name in FIGURES),
    ]


def _record(kind: str, instruction: str, terse: str) -> dict:
    return {"kind": kind, "instruction": instruction, "terse": terse}
