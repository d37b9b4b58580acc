"""What the recipes before Llama 2's train on: LIMA, Vicuna, Koala and Orca, in the miniature and from files."""

import dataclasses

SourceDict = dict[str, dict]
ALL = 1_000_000_000  # a limit that can be turned down
# A copy of the conversations that Vicuna was trained on; its own were never published.
SHAREGPT = "hf://datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/ShareGPT_V3_unfiltered_cleaned_split.json"

# What would imitate a speaker of Vicuna's or Koala's format: a set of millions has a few.
TAGS = ("USER:", "ASSISTANT:", "BEGINNING OF CONVERSATION:")
# Koala's markers: what is not marked, and whatever is asked in the end, has the first (text/chat_formats.py).
HELPFUL, UNHELPFUL = "a helpful answer", "an unhelpful answer"
# Three of Orca's sixteen system messages, one of which is empty (arXiv 2306.02707, table 2).
ORCA_MESSAGES = (
    "",
    "You are an AI assistant. User will you give you a task. Your goal is to complete the task as faithfully as you "
    "can. While performing the task think step-by-step and justify your steps.",
    "You are an AI assistant that helps people find information. User will you give you a question. Your task is to "
    "answer as faithfully as you can. While answering think step-by-step and justify your answer.",
)
# The miniature's, by sub-collection, in its few words.
MINIATURE_MESSAGES = {
    "compute": ("", "Think step by step."),
    "tell": ("You are a helper. Think step by step.", "Say how you find the answer."),
    "ask": ("", "Say how you find the answer."),
}


@dataclasses.dataclass(frozen=True)
class OtherRecipes:
    """What the experiments lima.py, vicuna.py, koala.py and orca.py read.

    Attributes:
      lima: by version what it is fine-tuned on; the first is LIMA's own, the others change one thing.
      lima_development: dialogues whose answers decide which epoch is taken, none of them trained on.
      lima_judge: who grades these answers: a function's dotted path with its arguments.
      shared_chats: conversations that people shared, cleaned; Koala trains on them too.
      marked_comparisons: comparisons as dialogues with either marker.
      orca_first, orca_second: the explanation traces of a weaker teacher, and fewer of a stronger one.
      orca_bare_first, orca_bare_second: the same questions with bare answers.
      orca_questions: what is asked in the end, with `answer`.
      orca_right: whether a response has a question's answer: a function's dotted path.
    """

    lima: dict[str, SourceDict]
    lima_development: SourceDict
    lima_judge: dict
    shared_chats: SourceDict
    marked_comparisons: SourceDict
    orca_first: SourceDict
    orca_second: SourceDict
    orca_bare_first: SourceDict
    orca_bare_second: SourceDict
    orca_questions: SourceDict
    orca_right: str


def miniature_recipes() -> OtherRecipes:
    """Returns the miniature's."""
    comparisons = _source("demonstrations.open_preferences", "preferences", count=800, noise=0.05, flipped=0.02)
    questions = {
        kind: {**_source("tool_sums.questions", "prompts", kind=kind, count=200), "defaults": {"category": kind}}
        for kind in ("three_numbers", "unseen")
    }
    return OtherRecipes(
        lima={
            "lima": _examples(160),
            "lima_quarter": _examples(40),
            "lima_fourfold": _examples(640),
            "unfiltered": _examples(640, quality="unfiltered"),
            "unfiltered_few": _examples(160, quality="unfiltered"),
            "one_kind": _examples(160, kinds=("howto",)),
        },
        # Harmless ones alone: whether a refusal is right is not a matter of the authors' taste.
        lima_development=_examples(50, unsafe=0.0, multi_turn=0.0, split="validation", purpose="development"),
        lima_judge={"function": "llama2_jax.miniature.curated.grade", "arguments": {}},
        shared_chats={
            "sharegpt": {**_source("shared_chats.conversations", "sharegpt", count=350), "prepare": _cleaning()}
        },
        marked_comparisons=_marked(comparisons),
        orca_first=_traces(1200, teacher="weak"),
        orca_second=_traces(500, teacher="strong"),
        orca_bare_first=_traces(1200, teacher="weak", explained=False),
        orca_bare_second=_traces(500, teacher="strong", explained=False),
        orca_questions=questions,
        orca_right="llama2_jax.miniature.tool_sums.right_sums",
    )


def real_recipes(*, demonstrations: SourceDict, lima: dict, comparisons: SourceDict) -> OtherRecipes:
    """Returns what there is in files, or on the hub.

    Args:
      demonstrations: public instruction data as it comes: the many examples, and the first of Orca's two sets.
      lima: its examples.
      comparisons: by people, of both domains.
    """
    few = {name: {**one, "limit": 800} for name, one in demonstrations.items()}
    medical = {
        "path": "sft/medquad/medquad.jsonl.gz", "format": "dialogues", "limit": 800,
        "columns": {"user": "question", "assistant": "answer"},
    }  # fmt: skip
    shared = {
        "path": "sft/fastchat_dummy/dummy_conversation.json.gz", "format": "sharegpt", "prepare": _cleaning(),
        "hub": {"path": SHAREGPT}, "on_bad_line": "skip", "limit": ALL,
    }  # fmt: skip
    return OtherRecipes(
        lima={
            "lima": {"lima": {**lima, "part": (0.0, 0.94)}},
            "lima_quarter": {"lima": {**lima, "part": (0.0, 0.235)}},
            "unfiltered": demonstrations,
            "unfiltered_few": few,
            # Written by experts, all of one kind, as LIMA's ablation has wikiHow.
            "one_kind": {"medquad": medical},
        },
        lima_development={"lima": {**lima, "part": (0.94, 1.0)}},
        lima_judge={"function": "llama2_jax.evaluation.reward_judge.judge", "arguments": {}},
        shared_chats={"sharegpt": shared},
        marked_comparisons={
            f"{name}_{side}": one for name, source in comparisons.items() for side, one in _marked(source).items()
        },
        orca_first=demonstrations,
        orca_second=_worked(explained=True),
        orca_bare_first=demonstrations,
        orca_bare_second=_worked(explained=False),
        orca_questions={
            "gsm8k": {
                **_gsm8k("test"), "kind": "prompts", "defaults": {"category": "gsm8k"}, "limit": 200,
                "columns": {"user": "question", "answer": "answer"}, "format": "prompts",
            }
        },
        orca_right="llama2_jax.evaluation.final_number.right_numbers",
    )  # fmt: skip


def _examples(count: int, **arguments) -> SourceDict:
    return {"examples": _source("curated.examples", "dialogues", count=count, **arguments)}


def _cleaning() -> dict:
    """HTML as Markdown, English alone, and nothing that imitates a speaker."""
    return {"function": "llama2_jax.data.sharegpt.cleaned", "arguments": {"without": TAGS}}


def _marked(comparisons: dict) -> SourceDict:
    """Returns comparisons as two dialogues each, the better answer under one marker and the other under the other."""

    def side(answer: str, marker: str) -> dict:
        prepare = {
            "function": "llama2_jax.data.system_messages.marked",
            "arguments": {"marker": marker, "answer": answer, "without": TAGS},
        }
        return {**comparisons, "kind": "dialogues", "prepare": prepare}

    return {"helpful": side("chosen", HELPFUL), "unhelpful": side("rejected", UNHELPFUL)}


def _traces(count: int, **arguments) -> SourceDict:
    prepare = {
        "function": "llama2_jax.data.system_messages.instructed",
        "arguments": {"instructions": MINIATURE_MESSAGES},
    }
    return {"traces": {**_source("explained_sums.traces", "dialogues", count=count, **arguments), "prepare": prepare}}


def _worked(*, explained: bool) -> SourceDict:
    arguments = {"explained": explained, "instructions": ORCA_MESSAGES}
    prepare = {"function": "llama2_jax.data.explanations.worked", "arguments": arguments}
    columns = {"user": "question", "assistant": "answer"}
    return {"gsm8k": {**_gsm8k("train"), "format": "dialogues", "columns": columns, "prepare": prepare}}


def _gsm8k(split: str) -> dict:
    return {
        "path": f"benchmarks/gsm8k/{split}.jsonl.gz", "limit": ALL,
        "hub": {"path": f"hf://datasets/openai/gsm8k/main/{split}-00000-of-00001.parquet"},
    }  # fmt: skip


def _source(function: str, format: str, **arguments) -> dict:
    return {"function": f"llama2_jax.miniature.{function}", "format": format, "weight": 1.0, "arguments": arguments}
