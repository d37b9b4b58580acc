"""Talk to a model: python -m llama2_jax.chat --checkpoint=<folder or hf://org/name>

It may have any format that llama2_jax.load reads. Answers are printed as they are generated; Ctrl-C stops one.

With --red_team=<ledger.jsonl> --who=<name> it is a session of red teaming (section 4.3): /violation CATEGORY [STYLE]
records the last answer as one that violated, and the ledger has the minutes of the session.
"""

import contextlib
import dataclasses
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import jax
from absl import app, flags, logging

from llama2_jax.data.red_team import Session, open_session, round_of
from llama2_jax.inference.dialogue_window import fit_dialogue
from llama2_jax.inference.generate import Sampling
from llama2_jax.inference.stream import Context, Streamer, begin, make_streamer, read, stream
from llama2_jax.inference.text_stream import text_pieces
from llama2_jax.loading import load, random_key
from llama2_jax.models.quantized import QUANTIZATIONS
from llama2_jax.paths import expand_home
from llama2_jax.sharding.machine import enable_compilation_cache, keep_freed_memory
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.text.dialogue import check_messages
from llama2_jax.text.tokenizer import Tokenizer

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "The model: a folder of this project, Hugging Face or Meta; or hf://<org>/<name>."
)
_SYSTEM = flags.DEFINE_string("system", "", "The system message; none by default.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.6, "Divides the logits; 0 takes the likeliest token.")
_TOP_P = flags.DEFINE_float("top_p", 0.9, "The nucleus: the share of probability that is sampled from; 1: all.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed and the same messages give the same answers.")
_MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", None, "The longest answer in tokens; by default 512, or half the context if that is less."
)
_TENSOR = flags.DEFINE_integer("tensor", 1, "Over how many devices the model is split.")
_QUANTIZE = flags.DEFINE_enum(
    "quantize", "", list(QUANTIZATIONS), "How the layers' matrices are stored: int8, int4, or as they are."
)
_RED_TEAM = flags.DEFINE_string("red_team", "", "A ledger, <name>.jsonl, that what violates is appended to; none: no.")
_WHO = flags.DEFINE_string("who", "", "With --red_team: who attacks.")
_ROUND = flags.DEFINE_integer("round", None, "The round of the version, 0 for SFT; by default as its name says.")

HELP = "/system TEXT sets a system message, /reset forgets the dialogue, /quit ends the chat; Ctrl-C stops an answer"
RED_TEAM_HELP = "/violation CATEGORY [STYLE] records the last answer as one that violated; " + HELP
# Control characters except newline and tab: they would move a terminal's cursor, or worse.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


@dataclasses.dataclass
class Chat:
    """A dialogue in progress.

    Attributes:
      streamer, tokenizer: the model.
      sampling: how tokens are chosen.
      key: the randomness of all answers.
      messages: the dialogue so far, as far as it fits the context; answers have their token ids.
      context: what the model has read.
      answers: the number of answers started; each has its own randomness.
      red_team: the session of red teaming; None if it is none.
      recorded: the answer that was recorded last.
    """

    streamer: Streamer
    tokenizer: Tokenizer
    sampling: Sampling
    key: jax.Array
    messages: list[dict]
    context: Context
    answers: int = 0
    red_team: Session | None = None
    recorded: dict | None = None

    @property
    def help(self) -> str:
        """The commands."""
        return RED_TEAM_HELP if self.red_team else HELP


def run_chat(chat: Chat, next_line: Callable[[], str], out: TextIO) -> None:
    """Reads lines and answers them until /quit or the end of the input.

    Args:
      chat: the dialogue; changed.
      next_line: returns the user's next message; raises EOFError if there is none.
      out: where answers and notices are written.
    """
    while True:
        try:
            line = next_line()
        except EOFError:
            out.write("\n")
            return
        except KeyboardInterrupt:
            out.write(f"\n({chat.help})\n")
            continue
        message = _CONTROL.sub("", line).strip()
        if message != line.strip():
            out.write("(control characters were removed)\n")
        command = _COMMAND.fullmatch(message)
        if command and command[1] in ("quit", "exit"):
            return
        try:
            if command:
                out.write(_obey(chat, command[1], (command[2] or "").strip()))
            elif message:
                _answer(chat, message, out)
        except ValueError as error:
            out.write(f"error: {error}\n")
        out.flush()


def _obey(chat: Chat, command: str, argument: str) -> str:
    """Executes a command and returns a notice."""
    system = [message for message in chat.messages if message["role"] == "system"]
    if command == "reset":
        chat.messages, chat.answers = system, 0
        return "(the dialogue is forgotten)\n"
    if command == "system":
        chat.messages = start_messages(argument) + chat.messages[len(system) :]
        return "(the system message is set)\n" if argument else "(there is no system message now)\n"
    if command == "violation" and chat.red_team:
        return _record_violation(chat, argument)
    return f"({chat.help})\n"


def _record_violation(chat: Chat, argument: str) -> str:
    """Appends the last answer to the ledger; returns a notice."""
    category, _, style = argument.partition(" ")
    if not category:
        raise ValueError("a violation needs a category of risk: /violation CATEGORY [STYLE]")
    if not chat.messages or chat.messages[-1]["role"] != "assistant":
        raise ValueError("there is no answer yet that could violate")
    answer = chat.messages[-1]
    if answer is chat.recorded:
        raise ValueError("this answer is recorded already")
    chat.red_team.record(chat.messages[:-1], answer["content"], category, style.strip())
    chat.recorded = answer
    return f"(recorded in {chat.red_team.path})\n"


def start_messages(system: str) -> list[dict]:
    """Returns a dialogue's first messages: its system message, if there is one.

    Raises:
      SpecialTagError: if it contains a tag of the chat format.
    """
    messages = [{"role": "system", "content": system}] if system else []
    check_messages([*messages, {"role": "user", "content": ""}])
    return messages


def _answer(chat: Chat, message: str, out: TextIO) -> None:
    """Answers a message, piece by piece; the dialogue is unchanged if the message cannot be answered."""
    longest = chat.streamer.config.max_length - chat.sampling.max_new_tokens
    window = fit_dialogue(chat.tokenizer, [*chat.messages, {"role": "user", "content": message}], longest)
    if window.dropped:
        context = f"the context of {chat.streamer.config.max_length} tokens"
        out.write(f"(the oldest {window.dropped} of the earlier turns no longer fit {context} and are forgotten)\n")
    new_tokens: list[int] = []

    def tokens(interrupted: Callable[[], bool]) -> Iterator[int]:
        chat.context = read(chat.streamer, chat.context, window.tokens)
        key = jax.random.fold_in(chat.key, chat.answers)
        for context in stream(chat.streamer, chat.context, chat.sampling, key, chat.tokenizer.end_id):
            chat.context = context
            new_tokens.append(context.tokens[-1])
            yield new_tokens[-1]
            if interrupted():
                return

    with _interrupts() as interrupted:
        for piece in text_pieces(chat.tokenizer, tokens(interrupted)):
            out.write(_CONTROL.sub("\ufffd", piece))
            out.flush()
    chat.answers += 1
    out.write("\n")
    if new_tokens[-1] != chat.tokenizer.end_id:
        reason = "stopped" if interrupted() else f"cut off after {len(new_tokens)} tokens: --max_new_tokens"
        out.write(f"({reason})\n")
    answer = {"role": "assistant", "content": chat.tokenizer.decode(new_tokens).strip(), "tokens": new_tokens}
    chat.messages = [*window.messages, answer]


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Records Ctrl-C instead of raising: an exception in the middle of a step would lose the cache."""
    noted = []
    previous = signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, previous)


def open_chat(
    checkpoint: str,
    system: str,
    temperature: float,
    top_p: float,
    max_new_tokens: int | None,
    seed: int,
    tensor: int = 1,
    quantize: str = "",
) -> Chat:
    """Loads a model for a new dialogue.

    Raises:
      ValueError: if a setting is invalid, or if the folder has no language model with its tokenizer.
    """
    # Invalid settings are refused before anything is loaded.
    Sampling(temperature, top_p, 1 if max_new_tokens is None else max_new_tokens)
    messages, key = start_messages(system), random_key(seed)
    mesh = None
    if tensor != 1:
        if not 1 < tensor <= len(jax.devices()):
            raise ValueError(f"--tensor={tensor}: there are {len(jax.devices())} devices")
        mesh = make_mesh(data=1, fsdp=1, tensor=tensor, devices=jax.devices()[:tensor])
    llama = load(checkpoint, mesh, dtype=None, head="language", quantize=quantize)
    if llama.tokenizer is None:
        raise ValueError(f"{checkpoint} has no tokenizer.model: put the model's own into the folder")
    length = llama.config.max_length
    if max_new_tokens is None:
        max_new_tokens = min(512, length // 2)
    if max_new_tokens >= length:
        raise ValueError(f"--max_new_tokens={max_new_tokens} leaves no room for a message in the context of {length}")
    streamer = make_streamer(llama.config, llama.params)
    sampling = Sampling(temperature, top_p, max_new_tokens)
    return Chat(streamer, llama.tokenizer, sampling, key, messages, begin(streamer))


def main(argv: list[str]) -> None:
    """Reads the flags, loads the model and talks until the input ends."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    # Input that is not UTF-8 is read, and output that a terminal cannot show is written, as a replacement character.
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(errors="replace")
    keep_freed_memory()
    enable_compilation_cache(expand_home("~/.cache/llama2_jax/compiled"))
    try:
        chat = open_chat(
            _CHECKPOINT.value, _SYSTEM.value, _TEMPERATURE.value, _TOP_P.value, _MAX_NEW_TOKENS.value, _SEED.value,
            _TENSOR.value, _QUANTIZE.value,
        )  # fmt: skip
        if _RED_TEAM.value:
            chat.red_team = open_session(_RED_TEAM.value, _WHO.value, round_of(_CHECKPOINT.value, _ROUND.value))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"({chat.help})")
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives `input` line editing
    with _session(chat.red_team):
        run_chat(chat, lambda: input("> "), sys.stdout)


@contextlib.contextmanager
def _session(red_team: Session | None) -> Iterator[None]:
    """Closes a session however the program ends, but by SIGKILL: by a closed terminal or the end of a job, too."""
    if red_team is None:
        yield
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        yield
    finally:
        red_team.close()


def _read_flags(arguments: list[str]) -> list[str]:
    """Parses flags as absl does, but logs from WARNING on unless told otherwise: this is a dialogue, not a log."""
    remaining = app.parse_flags_with_usage(arguments)
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # otherwise absl raises it to INFO after this
    return remaining


if __name__ == "__main__":
    flags.mark_flag_as_required("checkpoint")
    app.run(main, flags_parser=_read_flags)
