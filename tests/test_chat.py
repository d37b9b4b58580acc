"""The chat in the terminal: answers as they come, a dialogue that fits its context, and no input that ends it."""

import dataclasses
import io
import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

import llama2_jax
from llama2_jax import chat as chat_file
from llama2_jax.chat import HELP, open_chat, run_chat
from llama2_jax.inference import stream as stream_file
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.text.dialogue import encode_prompt
from tests.talking import CONFIG, write_talking_model

ROOT = pathlib.Path(__file__).parents[1]
NEW = 12  # max_new_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_talking_model(path)
    return str(path)


@pytest.fixture(scope="module")
def llama(folder):
    return llama2_jax.load(folder)


class Screen(io.StringIO):
    """What is written, and how much of it stood there at each flush."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def flush(self):
        self.seen.append(self.getvalue())


@pytest.fixture
def talk(folder):
    """Says lines to a fresh chat; gives the chat and its screen."""

    def run(*lines, system="", temperature=0.6, top_p=0.9, max_new_tokens=NEW, seed=0):
        chat = open_chat(folder, system, temperature, top_p, max_new_tokens, seed)
        screen = Screen()
        run_chat(chat, script(*lines), screen)
        return chat, screen

    return run


def script(*lines):
    """What the user does, line after line, and then the end of the input; exceptions are raised."""
    rest = iter(lines)

    def next_line():
        line = next(rest, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return next_line


def spoken(chat):
    return [(message["role"], message["content"]) for message in chat.messages]


def expected_answer(llama, messages, answer_number, seed=0, temperature=0.6, top_p=0.9):
    """By generation in a batch, from the whole dialogue."""
    key = jax.random.fold_in(jax.random.key(seed), answer_number)
    config = dataclasses.replace(llama.config, generation_rows=1)
    (sample,) = generate(
        config, llama.params, [encode_prompt(llama.tokenizer, messages)], Sampling(temperature, top_p, NEW), key,
        llama.tokenizer.eos_id,
    )  # fmt: skip
    return sample.tokens.tolist()


@pytest.mark.parametrize("system", ["", "please be quiet"])
def test_every_answer_is_what_generation_gives_after_the_whole_dialogue(talk, llama, system):
    chat, _ = talk("what is the river", "and the garden", "why", system=system)
    assert [role for role, _ in spoken(chat)] == ["system"] * bool(system) + ["user", "assistant"] * 3
    answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
    for number, index in enumerate(answers):
        assert chat.messages[index]["tokens"] == expected_answer(llama, chat.messages[:index], number)


def test_temperature_zero_is_greedy(talk, llama):
    chat, _ = talk("what is the river", temperature=0.0)
    assert chat.messages[1]["tokens"] == expected_answer(llama, chat.messages[:1], 0, temperature=0.0)


def test_the_same_seed_gives_the_same_text(talk):
    texts = [talk("the river", "the stone", seed=seed, temperature=1.0)[1].getvalue() for seed in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


def test_text_appears_as_it_comes_and_is_whole_in_the_end(talk):
    chat, screen = talk("what is the river", max_new_tokens=40)
    answer = chat.messages[1]["content"]
    assert answer in screen.getvalue()
    growing = [seen for seen in screen.seen if seen and seen in screen.getvalue()]
    assert len(growing) > 10 and all(screen.getvalue().startswith(seen) for seen in growing)


def test_an_empty_message_is_passed_over(talk):
    chat, screen = talk("", "   ", "\t", "the river")
    assert [role for role, _ in spoken(chat)] == ["user", "assistant"]
    assert "error" not in screen.getvalue()


def test_a_message_longer_than_the_context_is_refused_and_the_chat_goes_on(talk):
    chat, screen = talk("the river", "word " * 5000, "the stone")
    assert f"there is room for {CONFIG.max_length - NEW}" in screen.getvalue()
    assert [content for role, content in spoken(chat) if role == "user"] == ["the river", "the stone"]


@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
def test_a_tag_of_the_chat_format_is_refused_and_the_chat_goes_on(talk, tag):
    chat, screen = talk(f"the river {tag} x", "the stone")
    assert f"error: message 0 (user) contains {tag}: special tags are not allowed" in screen.getvalue()
    assert [content for role, content in spoken(chat) if role == "user"] == ["the stone"]


def test_control_characters_do_not_come_through_in_either_direction(talk, monkeypatch):
    pieces = ["a\x1b[31m", "b\x00c\rd\n\te\x9b"]
    monkeypatch.setattr(chat_file, "text_pieces", lambda tokenizer, tokens: [*pieces, *[""] * len(list(tokens))])
    chat, screen = talk("the \x00river\x1b[2J \x07stone")
    assert spoken(chat)[0] == ("user", "the river[2J stone")
    assert "(control characters were removed)" in screen.getvalue()
    assert "a\ufffd[31mb\ufffdc\ufffdd\n\te\ufffd" in screen.getvalue()
    assert not set(screen.getvalue()) & set("\x00\x07\x1b\r\x9b")


ODD = [
    "\ud7ff\ue000\U0010ffff",
    "😀👩\u200d👩\u200d👧",
    "\u202eabc\ufeff",
    "a" * 100,
    "/home/me/file",
    "</s><s>",
    "<unk>",
    "%s{}\\n",
]


def test_odd_messages_are_answered(talk, llama):
    for odd in ODD:
        chat, screen = talk(odd, max_new_tokens=3)
        assert spoken(chat)[0] == ("user", odd) and len(chat.messages) == 2, screen.getvalue()
        assert encode_prompt(llama.tokenizer, chat.messages[:1]).count(llama.tokenizer.eos_id) == 0


def test_the_oldest_turns_go_when_the_context_is_full_and_the_system_message_stays(talk, llama):
    chat, screen = talk(*["the river and the stone and the garden"] * 9, system="be quiet")
    assert "no longer fit the context of 160 tokens and are forgotten)" in screen.getvalue()
    assert spoken(chat)[0] == ("system", "be quiet")
    assert [role for role, _ in spoken(chat)[1:]] == ["user", "assistant"] * ((len(chat.messages) - 1) // 2)
    assert len(chat.messages) < 1 + 2 * 9
    assert len(encode_prompt(llama.tokenizer, chat.messages[:-1])) <= CONFIG.max_length - NEW
    # The answer after a turn was dropped is the one to the dialogue without it.
    assert chat.messages[-1]["tokens"] == expected_answer(llama, chat.messages[:-1], 8)


def test_turns_of_all_lengths_compile_nothing_new(talk):
    talk("the river", "stone")
    programs = (stream_file._read_block, stream_file._next_token)
    before = [program._cache_size() for program in programs]
    talk("a", "word " * 9, "the river " * 4, "x", "stone " * 20, temperature=1.1, top_p=0.5, max_new_tokens=7)
    assert [program._cache_size() for program in programs] == before


def test_commands(talk):
    chat, screen = talk("the river", "/system be quick", "the stone", "/reset", "/nonsense", "/quit", "never said")
    assert spoken(chat) == [("system", "be quick")]
    assert "(the system message is set)" in screen.getvalue() and "(the dialogue is forgotten)" in screen.getvalue()
    assert f"({HELP})" in screen.getvalue()
    chat, screen = talk("/system [INST]", "/system x", "the river", "/system")
    assert [role for role, _ in spoken(chat)] == ["user", "assistant"]
    assert "error: message 0 (system) contains [INST]" in screen.getvalue()


def test_after_a_reset_the_same_messages_give_the_same_answers(talk):
    _, screen = talk("the river", "/reset", "the river", temperature=1.0)
    before, _, after = screen.getvalue().partition("(the dialogue is forgotten)\n")
    assert before.strip() and before.strip() == after.strip()


def test_interrupting_at_the_prompt_does_not_end_the_chat(talk):
    chat, screen = talk(KeyboardInterrupt, "the river")
    assert HELP in screen.getvalue() and len(chat.messages) == 2


def test_interrupting_an_answer_ends_the_answer_and_keeps_what_was_said(talk, llama, monkeypatch):
    original, drawn = stream_file._next_token, []

    def interrupted(*arguments, **static):
        drawn.append(1)
        if len(drawn) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **static)

    monkeypatch.setattr(stream_file, "_next_token", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    chat, screen = talk("the river", "the stone", max_new_tokens=30)
    assert signal.getsignal(signal.SIGINT) is handler
    assert screen.getvalue().count("(stopped)") == 1
    assert len(chat.messages) == 4 and len(chat.messages[1]["tokens"]) == 4
    monkeypatch.undo()
    config = dataclasses.replace(llama.config, generation_rows=1)
    (sample,) = generate(
        config, llama.params, [encode_prompt(llama.tokenizer, chat.messages[:3])], Sampling(0.6, 0.9, 30),
        jax.random.fold_in(jax.random.key(0), 1), llama.tokenizer.eos_id,
    )  # fmt: skip
    assert chat.messages[3]["tokens"] == sample.tokens.tolist(), "what was left half said is a part of the dialogue"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "sampling temperature is -1.0"),
        ({"top_p": 0.0}, "sampling top_p is 0.0"),
        ({"max_new_tokens": 160}, "--max_new_tokens=160 leaves no room for a message in the context of 160"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"system": "x [INST]"}, r"contains \[INST\]"),
        ({"tensor": 9}, "--tensor=9: there are 8 devices"),
        ({"seed": 2**64}, "seed is 18446744073709551616; wanted an integer from -2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(folder, settings, message):
    defaults = {"system": "", "temperature": 0.6, "top_p": 0.9, "max_new_tokens": NEW, "seed": 0}
    with pytest.raises(ValueError, match=message):
        open_chat(folder, **{**defaults, **settings})


@pytest.mark.slow
def test_what_can_not_talk_is_refused(tmp_path):
    write_talking_model(tmp_path / "judge", head="scalar")
    with pytest.raises(ValueError, match=r"is a reward model, .* what is needed here is a language model"):
        open_chat(str(tmp_path / "judge"), "", 0.6, 0.9, NEW, 0)
    write_talking_model(tmp_path / "mute")
    (tmp_path / "mute/tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.model"):
        open_chat(str(tmp_path / "mute"), "", 0.6, 0.9, NEW, 0)


@pytest.mark.slow
def test_a_model_over_several_devices_says_the_same(folder):
    def said(tensor):
        chat = open_chat(folder, "", 0.0, 1.0, NEW, 0, tensor)
        run_chat(chat, script("the river"), io.StringIO())
        return chat.messages[1]["tokens"]

    assert said(2) == said(1)


@pytest.mark.parametrize(("given", "level"), [([], -1), (["--verbosity=0"], 0), (["-v", "1"], 1)])
def test_a_dialogue_shows_information_only_where_asked_for(given, level):
    with flagsaver.flagsaver():
        chat_file._read_flags(["chat", "--checkpoint=x", *given])
        assert flags.FLAGS.verbosity == level
        assert not flags.FLAGS["verbosity"].using_default_value  # which absl would raise to 0


def command(folder, given, *flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "", "HOME": folder, "PYTHONUTF8": "0"}
    return subprocess.run(
        [sys.executable, "-m", "llama2_jax.chat", f"--checkpoint={folder}", *flags],
        input=given, env=environment, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_the_program_reads_bytes_that_are_no_utf8_and_ends_with_its_input(folder):
    done = command(folder, b"the \xff\xfe river\n\xf0\x9f\n\nstone", "--max_new_tokens=4", "--system=be quiet")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("utf-8", errors="replace").count("cut off after 4 tokens: --max_new_tokens") == 3
    assert b"Traceback" not in done.stderr and b"backend" not in done.stderr


@pytest.mark.slow
def test_the_program_says_what_is_wrong_without_a_traceback(tmp_path):
    failed = command(str(tmp_path), b"", "--seed=1")
    assert failed.returncode == 1 and b"has no model" in failed.stderr and b"Traceback" not in failed.stderr
    (tmp_path / "config.json").mkdir()
    failed = command(str(tmp_path), b"")
    assert failed.returncode == 1 and b"config.json" in failed.stderr and b"Traceback" not in failed.stderr
