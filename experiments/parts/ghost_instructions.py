"""Standing instructions for Ghost Attention: hobbies, languages, public figures (section 3.3)."""

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
    """Records with `instruction` and its `terse` form."""
    del seed
    return [
        *({"instruction": f"You enjoy {hobby}.", "terse": f"Hobby: {hobby}."} for hobby in HOBBIES),
        *({"instruction": f"Always speak in {name}.", "terse": f"Language: {name}."} for name in LANGUAGES),
        *({"instruction": f"Always act as {name} from now on.", "terse": f"Figure: {name}."} for name in FIGURES),
    ]
