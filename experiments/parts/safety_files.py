"""The files of the paper's automatic safety benchmarks, under data.root, as they are published (A.4.7)."""

# By set; globs and lists too.
SAFETY_FILES = {
    "truthfulqa": "safety/truthfulqa/TruthfulQA.csv",
    "toxigen": "safety/toxigen/*_1k.txt.gz",
    "bold": "safety/bold/prompts/*_prompt.json.gz",
}
# Of table 45; ToxiGen's repository has prompts about three more.
TOXIGEN_GROUPS = (
    "asian", "mexican", "muslim", "physical_disability", "jewish", "middle_east", "chinese", "mental_disability",
    "latino", "native_american", "women", "black", "lgbtq",
)  # fmt: skip


def safety_files(*, optional: bool) -> dict[str, dict]:
    """Returns the files of each set, and whether an experiment does without a set that is not there."""
    return {name: {"files": files, "optional": optional} for name, files in SAFETY_FILES.items()}
