"""The released tokenizer: SentencePiece's ids, transformers' ids, and dialogues by hand from the published format.

The file is Meta's and not part of this project: these tests look for it at the path in tests/text/conftest.py, and are
skipped if it is absent.
"""

import json

import pytest
import sentencepiece

from llama2_jax.interop.tokenizer_json import tokenizer_json
from llama2_jax.text.dialogue import encode_dialogue, encode_prompt
from tests.text.odd_lines import odd_lines

LINES = odd_lines(10_000)
USER, SYSTEM = "What is 2+2?", "Answer in one word."


@pytest.fixture(scope="module")
def raw(released):
    """SentencePiece without our wrapper."""
    return sentencepiece.SentencePieceProcessor(model_proto=released._processor.serialized_model_proto())


@pytest.fixture(scope="module")
def ours(released):
    return [ids.tolist() for ids in released.encode_many(LINES, threads=2)]


def test_the_lines_have_every_kind_of_text():
    """Otherwise the tests below would prove little."""
    assert len(LINES) == 10_000
    kinds = (
        "    ",
        "\t",
        "\u3000",
        "\x00",
        "\U0001f600",
        "def f(x):",
        "\u4f60",
        "\ufeff",
        "\r\n",
        "caf\u00e9",
        "\u200d",
    )
    assert all(sum(kind in line for line in LINES) >= 100 for kind in kinds)
    assert sum(line.startswith(" ") for line in LINES) >= 500 and sum(line.endswith(" ") for line in LINES) >= 500


def test_ids_are_sentencepieces_own_and_give_the_text_back(raw, released, ours):
    assert ours == raw.encode(LINES)
    assert [released.decode(ids) for ids in ours] == LINES


def test_ids_are_those_of_transformers_sentencepiece_tokenizer(released, ours, tmp_path):
    """transformers' own wrapping of the model as it was released (legacy: a space is put before every text)."""
    backend = pytest.importorskip("transformers.tokenization_utils_sentencepiece", reason="needs transformers 5")
    write_released(tmp_path, released)
    theirs = backend.SentencePieceBackend(
        vocab_file=str(tmp_path / "tokenizer.model"), legacy=True,
        unk_token="<unk>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    assert [theirs.encode(line, add_special_tokens=False) for line in LINES] == ours


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "LlamaTokenizer"])
def test_ids_are_those_of_transformers_fast_tokenizers(released, ours, tmp_path, name):
    """Written in Rust, from merges, with nothing of SentencePiece: an independent truth.

    The class LlamaTokenizer of transformers 5 leaves the space out that SentencePiece puts before a text where the text
    begins with one already; earlier versions and the fast tokenizer as such put it there, as the release does.
    """
    transformers = pytest.importorskip("transformers", reason="the reference is transformers' LlamaTokenizer")
    if int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("the expectations are written for transformers 5")
    write_released(tmp_path, released, tokenizer_class=name)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = ours
    if name == "LlamaTokenizer":
        assert type(theirs).__name__ == "LlamaTokenizer"
        space = [29871]  # a text that is one space alone stays one
        expected = [
            released.encode(line[1:]) or space if line.startswith(" ") else ids
            for line, ids in zip(LINES, ours, strict=True)
        ]
    assert [theirs.encode(line, add_special_tokens=False) for line in LINES] == expected
    assert theirs.encode("Hello") == released.encode("Hello", bos=True)


def write_released(folder, released, **settings):
    (folder / "tokenizer.model").write_bytes(released._processor.serialized_model_proto())
    if settings:
        (folder / "tokenizer.json").write_text(tokenizer_json(folder / "tokenizer.model"))
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **special, "legacy": True}))


def test_known_ids(released):
    """Ids that are published or were read from the model's own list of pieces."""
    assert released.encode("Hello world", bos=True, eos=True) == [1, 15043, 3186, 2]
    assert released.encode("") == []
    assert released.encode(" ") == [259]  # two spaces: the text's and the one put before it
    assert released.encode("2024") == [29871, 29906, 29900, 29906, 29946]  # split digits
    assert released.encode("\n") == [29871, 13]  # 13 is the byte 0x0A: 10 + 3
    assert released.encode("\U0001f999") == [29871, 243, 162, 169, 156]  # bytes F0 9F A6 99, each + 3
    assert released.encode("<s>")[0] != released.bos_id and released.bos_id not in released.encode("<s></s>")


def message(role, content):
    return {"role": role, "content": content}


# By hand, from the published format: each pair on its own between BOS and EOS, with the spaces as they stand here; an
# open user turn with BOS alone.
DIALOGUES = {
    "open": ([message("user", USER)], ["[INST] What is 2+2? [/INST]"]),
    "single": (
        [message("user", USER), message("assistant", "Four.")],
        ["[INST] What is 2+2? [/INST] Four. "],
    ),
    "system": (
        [message("system", SYSTEM), message("user", USER)],
        ["[INST] <<SYS>>\nAnswer in one word.\n<</SYS>>\n\nWhat is 2+2? [/INST]"],
    ),
    "several turns": (
        [
            message("user", USER), message("assistant", " Four.\n"), message("user", "  And 3+3?"),
            message("assistant", "Six."), message("user", "Thanks"),
        ],
        ["[INST] What is 2+2? [/INST] Four. ", "[INST] And 3+3? [/INST] Six. ", "[INST] Thanks [/INST]"],
    ),
    "several turns after a system message": (
        [
            message("system", SYSTEM), message("user", USER), message("assistant", "Four."),
            message("user", "And 3+3?"), message("assistant", "Six."),
        ],
        [
            "[INST] <<SYS>>\nAnswer in one word.\n<</SYS>>\n\nWhat is 2+2? [/INST] Four. ",
            "[INST] And 3+3? [/INST] Six. ",
        ],
    ),
    "lines and emoji": (
        [message("user", "a\n\n  b\t\U0001f999"), message("assistant", "1. x\n2. y")],
        ["[INST] a\n\n  b\t\U0001f999 [/INST] 1. x\n2. y "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues_have_the_ids_of_the_published_format(raw, released, name):
    messages, texts = DIALOGUES[name]
    golden = []
    for text in texts:
        golden += [1, *raw.encode(text)] + [2] * (not text.endswith("[/INST]"))
    assert encode_dialogue(released, messages).tokens.tolist() == golden
    if messages[-1]["role"] == "user":
        assert encode_prompt(released, messages) == golden


# "[INST]", "[/INST]", "<<SYS>>\n" and "\n<</SYS>>\n\n" as the pieces of the released vocabulary spell them.
INST, END = [518, 25580, 29962], [518, 29914, 25580, 29962]
SYS, END_SYS = [3532, 14816, 29903, 6778, 13], [13, 29966, 829, 14816, 29903, 6778, 13, 13]
# " What is 2+2?" after "[INST]", and "What is 2+2?" after the system message's newline.
WHAT, WHAT_AFTER_NEWLINE = (
    [1724, 338, 29871, 29906, 29974, 29906, 29973],
    [5618, 338, 29871, 29906, 29974, 29906, 29973],
)
FOUR = [12458, 29889, 29871]  # "▁Four" "." and the space before EOS
ANSWER_IN_ONE_WORD = [22550, 297, 697, 1734, 29889]
AND_THREE = [1126, 29871, 29941, 29974, 29941, 29973]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("open", [1, *INST, *WHAT, *END]),
        ("single", [1, *INST, *WHAT, *END, *FOUR, 2]),
        ("system", [1, *INST, *SYS, *ANSWER_IN_ONE_WORD, *END_SYS, *WHAT_AFTER_NEWLINE, *END]),
        (
            "several turns",
            [1, *INST, *WHAT, *END, *FOUR, 2, 1, *INST, *AND_THREE, *END, 18372, 29889, 29871, 2, 1, *INST, 1834, *END],
        ),
    ],
)
def test_golden_ids(released, name, ids):
    assert encode_dialogue(released, DIALOGUES[name][0]).tokens.tolist() == ids
