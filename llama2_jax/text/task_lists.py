r"""Lists of tasks that a language model is shown and asked to continue, as Self-Instruct and Alpaca do.

A form is data: how a task is written and read again. `ALPACA` is a numbered list behind a page of requirements, for a
model that follows them; `QUESTIONS` has a line a task and nothing else, for a small model whose text has such lines.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Task(NamedTuple):
    """An instruction, what it is about ("" if it needs nothing) and the response."""

    instruction: str
    input: str
    output: str


class ReadTasks(NamedTuple):
    """The tasks of a list, and how many of its other items are no tasks."""

    tasks: list[Task]
    malformed: int


@dataclasses.dataclass(frozen=True)
class TaskList:
    """The texts of a list.

    Attributes:
      name: such as "alpaca".
      introduction: before the list, with {wanted}: how many tasks it shall have.
      item: a task, with {number}, {instruction}, {input} and {output}.
      separator: before each item.
      opening: how the item begins that the model shall write first, with {number}.
      pattern: what a task is read by, with the groups instruction, output and, where there is one, input.
      no_input: how the list says that a task has no input.
    """

    name: str
    introduction: str
    item: str
    separator: str
    opening: str
    pattern: re.Pattern[str]
    no_input: str = ""


# The layout and the requirements of Stanford Alpaca's prompt, in our words; it showed three tasks and asked for 20.
ALPACA = TaskList(
    name="alpaca",
    introduction=(
        "Write a list of {wanted} different tasks for a language model. The tasks will be given to the model, and its "
        "responses will be judged.\n\n"
        "What is required:\n"
        "1. Let the tasks differ in their verbs: repeat none if you can.\n"
        "2. Mix questions with commands.\n"
        "3. Let the tasks be of many kinds: open-ended writing, classification, editing, questions, and so on.\n"
        "4. A model of text alone must be able to do each task: nothing to be drawn, played, or remembered for later.\n"
        "5. Write in English.\n"
        "6. An instruction is one or two sentences long.\n"
        "7. Give the task an input where it needs one: a real example and no placeholder, of at most 100 words.\n"
        '8. Where a task needs none, such as a question about the world, write "<noinput>".\n'
        "9. The output is a good response to the instruction and its input, of at most 100 words.\n\n"
        "The list of {wanted} tasks:\n"
    ),
    item="{number}. Instruction: {instruction}\n{number}. Input:\n{input}\n{number}. Output:\n{output}\n",
    separator="###\n",
    opening="{number}. Instruction:",
    pattern=re.compile(
        r"\s*(?P<number>\d+)\.\s*Instruction:\s*(?P<instruction>\S.*?)\s*(?P=number)\.\s*Input:\s*(?P<input>.*?)"
        r"\s*(?P=number)\.\s*Output:\s*(?P<output>\S.*?)\s*",
        re.DOTALL,
    ),
    no_input="<noinput>",
)
QUESTIONS = TaskList(
    name="questions",
    introduction="",
    item="Question: {instruction} Answer: {output}\n",
    separator="",
    opening="Question:",
    pattern=re.compile(r"\s*Question: *(?P<instruction>\S.*?) *Answer: *(?P<output>\S.*?)\s*"),
)
TASK_LISTS: Mapping[str, TaskList] = {one.name: one for one in (ALPACA, QUESTIONS)}


def task_list(name: str) -> TaskList:
    """Returns the form of a name.

    Raises:
      ValueError: if there is none.
    """
    if name not in TASK_LISTS:
        raise ValueError(f"task_list={name!r}: choose one of {', '.join(TASK_LISTS)}")
    return TASK_LISTS[name]


def unfinished_list(form: TaskList, shown: Sequence[Task], wanted: int) -> str:
    """Returns the list with the tasks that are shown, up to where the model goes on.

    Instructions stand on one line, without a colon at their end, as in Alpaca's.
    """
    text = form.introduction.format(wanted=wanted)
    for number, task in enumerate(shown, 1):
        instruction = " ".join(task.instruction.split()).rstrip(":")
        item = {"instruction": instruction, "input": task.input.strip() or form.no_input, "output": task.output.strip()}
        text += form.separator + form.item.format(number=number, **item)
    return text + form.separator + form.opening.format(number=len(shown) + 1)


def read_tasks(form: TaskList, continuation: str, shown: int, finished: bool) -> ReadTasks:
    """Reads the tasks that a model wrote behind `unfinished_list`.

    Args:
      form: of the list.
      continuation: what the model wrote; it may begin with the opening again, as chat models do.
      shown: how many tasks stood before it.
      finished: whether the model came to an end; otherwise the last item may be cut off and is not read.
    """
    opening, between = form.opening.format(number=shown + 1), form.separator.strip() or "\n"
    begun = continuation.strip().removeprefix(between).lstrip()
    text = begun if begun.startswith(opening) else opening + continuation
    items = text.split(between)
    if not finished:
        items = items[:-1]
    tasks, malformed = [], 0
    for item in items:
        found = form.pattern.fullmatch(item)
        if found:
            said = found.groupdict()
            context = said.get("input", "")
            tasks.append(Task(said["instruction"], "" if context == form.no_input else context, said["output"]))
        elif item.strip():
            malformed += 1
    return ReadTasks(tasks, malformed)


def task_messages(task: Task) -> list[dict[str, str]]:
    """Returns a task as a dialogue of one turn, its input beside and below the instruction (text/chat_formats.py)."""
    user = {"role": "user", "content": task.instruction}
    if task.input:
        user = {"role": "user", "content": f"{task.instruction}\n\n{task.input}", "input": task.input}
    return [user, {"role": "assistant", "content": task.output}]


def task_of(messages: Sequence[Mapping]) -> Task:
    """Returns a dialogue of one turn as a task.

    Raises:
      ValueError: if it has more turns, or a system message.
    """
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"]:
        raise ValueError(f"a task is one user's turn and its answer; this dialogue has {', '.join(roles)}")
    context = str(messages[0].get("input", ""))
    return Task(str(messages[0]["content"]).removesuffix(context).strip(), context, str(messages[1]["content"]))
