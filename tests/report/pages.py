"""Runs the report's stage on made-up runs, and reads its page as a browser would."""

import html.parser
import json
import types

from etils import epath
from ml_collections import ConfigDict

from llama2_jax.models.config import ModelConfig
from llama2_jax.stages import report

MODEL = ModelConfig(
    vocab_size=768, dim=128, layers=4, heads=4, kv_heads=2, ffn_hidden=352, max_length=256, scan_layers=False
)
SECTIONS = (
    "versions", "instructions", "safety", "rewards", "annotation", "sampling", "ppo", "training", "answers", "time",
    "configuration",
)  # fmt: skip


def make_report(workdir, inputs):
    """Runs the stage; returns report.json's content, the page, and what the stage returns."""
    folder = epath.Path(workdir) / "report"
    folder.mkdir()
    runtime = types.SimpleNamespace(folder=folder, experiment_seed=3, model=MODEL, stage="report")
    results = report.run(ConfigDict(), inputs, runtime)
    return json.loads((folder / "report.json").read_text()), (folder / "index.html").read_text(), results


class Page(html.parser.HTMLParser):
    """What a browser would find: ids, text by tag, addresses outside of the page, and unclosed elements."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.ids, self.text, self.outside, self.tags, self.open = [], "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href") and not value.startswith("#"):
                self.outside.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
