"""Small files in the places and formats of the real data (experiments/parts/real_data.py), for tests."""

import csv
import gzip
import json
import pathlib
import random

SYLLABLES = [first + vowel + last for first in "bdfgklmnprst" for vowel in "aeiou" for last in ("", "n", "r", "s")]


def write_real_data(root: pathlib.Path, conversations: int = 500, seed: int = 0) -> pathlib.Path:
    """Writes all files under `root`, with so many conversations of each domain, and returns `root`."""
    words = _Words(random.Random(seed))
    for name in ("openstax/book", "factbook/factbook", "c4_demo/c4_demo", "us_speeches/us_speeches", "peps/peps"):
        _write(root / f"pretrain/{name}.jsonl.gz", _lines({"text": words.text(120)} for _ in range(60)))
    _write(root / "pretrain/wiki_demo/wiki_demo.txt.gz", "\n".join(words.text(60) for _ in range(60)))
    for book in range(3):
        _write(root / f"pretrain/standardebooks/{book}.txt.gz", words.text(2000))
    dolly = [
        {"instruction": words.question(), "context": "", "response": words.text(15), "category": "open_qa"}
        for _ in range(600)
    ]
    _write(root / "sft/dolly15k/databricks-dolly-15k.jsonl.gz", _lines(dolly))
    for file in ("lima/lima.json.gz", "safety_tuned_llamas/safety_only_data_Instructions.json.gz"):
        rows = [{"instruction": words.question(), "input": "", "output": words.text(20)} for _ in range(500)]
        _write(root / "sft" / file, json.dumps(rows))
    for folder in ("preferences_helpful/hh_rlhf/helpful-base", "preferences_safety/hh_rlhf/harmless-base"):
        rows = (words.comparison() for _ in range(conversations))
        _write(root / folder / "test.jsonl.gz", _lines(rows))
    choices = ({"goal": words.question(), "sol1": words.text(5), "sol2": words.text(5)} for _ in range(4))
    piqa = root / "benchmarks/piqa"
    piqa.mkdir(parents=True)
    (piqa / "valid.jsonl").write_text(_lines(choices))
    (piqa / "valid-labels.lst").write_text("0\n1\n1\n0\n")
    path = root / "safety/xstest/xstest_prompts.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "label"])
        writer.writerows([index, words.question(), "safe" if index % 2 else "unsafe"] for index in range(60))
    return root


class _Words:
    """Random sentences: enough different words to fill a vocabulary."""

    def __init__(self, generator: random.Random):
        self._generator = generator

    def text(self, count: int) -> str:
        return " ".join("".join(self._generator.choices(SYLLABLES, k=2)) for _ in range(count)) + "."

    def question(self) -> str:
        return f"What is {self.text(6)[:-1]}?"

    def comparison(self) -> dict[str, str]:
        prompt = f"\n\nHuman: {self.question()}\n\nAssistant: "
        if self._generator.random() < 0.3:
            prompt += f"{self.text(8)}\n\nHuman: {self.question()}\n\nAssistant: "
        return {"chosen": prompt + self.text(10), "rejected": prompt + self.text(10)}


def _lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=1))
