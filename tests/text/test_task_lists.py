"""Lists of tasks are written and read again."""

import pytest

from llama2_jax.text.task_lists import (
    ALPACA,
    QUESTIONS,
    TASK_LISTS,
    Task,
    read_tasks,
    task_list,
    task_messages,
    task_of,
    unfinished_list,
)

TASKS = [
    Task("Add the numbers.", "2 and 3", "5"),
    Task("Name a colour.", "", "Blue."),
    Task("Write two lines about rain:", "", "Rain falls.\nRain stops."),
]


def test_alpacas_list():
    text = unfinished_list(ALPACA, TASKS, 20)
    head, _, items = text.partition("###\n")
    assert head.count("20") == 2 and "<noinput>" in head
    assert items == (
        "1. Instruction: Add the numbers.\n1. Input:\n2 and 3\n1. Output:\n5\n###\n"
        "2. Instruction: Name a colour.\n2. Input:\n<noinput>\n2. Output:\nBlue.\n###\n"
        "3. Instruction: Write two lines about rain\n3. Input:\n<noinput>\n3. Output:\nRain falls.\nRain stops.\n###\n"
        "4. Instruction:"
    )


def test_a_list_of_questions():
    assert unfinished_list(QUESTIONS, TASKS[1:2], 20) == "Question: Name a colour. Answer: Blue.\nQuestion:"


@pytest.mark.parametrize("form", TASK_LISTS.values(), ids=TASK_LISTS)
def test_what_was_written_is_read(form):
    """A model that continues the list as it began."""
    tasks = [task for task in TASKS if form is ALPACA or (not task.input and "\n" not in task.output)]
    whole, begun = unfinished_list(form, [*TASKS[:1], *tasks], 20), unfinished_list(form, TASKS[:1], 20)
    continuation = whole.removeprefix(begun)
    continuation = continuation[: continuation.rindex(form.opening.partition("{number}")[2].strip())]
    found = read_tasks(form, continuation, 1, finished=False)
    assert found.tasks == [task._replace(instruction=task.instruction.rstrip(":")) for task in tasks]
    assert found.malformed == 0


@pytest.mark.parametrize("before", ["", "4. Instruction:", "###\n4. Instruction:", "\n 4. Instruction:"])
def test_a_model_may_begin_with_the_opening_again(before):
    said = f"{before} Name a tree.\n4. Input:\n<noinput>\n4. Output:\nAn oak.\n###\n5. Instruction: Name a bir"
    assert read_tasks(ALPACA, said, 3, finished=False).tasks == [Task("Name a tree.", "", "An oak.")]


def test_the_last_item_counts_only_where_the_model_came_to_an_end():
    said = " Name a tree.\n4. Input:\n<noinput>\n4. Output:\nAn oa"
    assert read_tasks(ALPACA, said, 3, finished=False) == ([], 0)
    assert read_tasks(ALPACA, said, 3, finished=True) == ([Task("Name a tree.", "", "An oa")], 0)


@pytest.mark.parametrize(
    "item",
    [
        "Name a tree.\n4. Output:\nAn oak.",
        "Name a tree.\n4. Input:\n\n5. Output:\nAn oak.",
        "Name a tree.\n4. Input:\n<noinput>\n4. Output:\n",
        "\n4. Input:\n<noinput>\n4. Output:\nAn oak.",
        "I am sorry, I cannot write tasks.",
    ],
    ids=["no input", "another number", "no output", "no instruction", "a refusal"],
)
def test_what_is_no_task_is_counted(item):
    after = "###\n5. Instruction: Name a bird.\n5. Input:\nof prey\n5. Output:\nA hawk.\n"
    assert read_tasks(ALPACA, f" {item}\n{after}", 3, finished=True) == (
        [Task("Name a bird.", "of prey", "A hawk.")],
        1,
    )
    assert read_tasks(ALPACA, "", 3, finished=True).tasks == []


def test_an_unknown_form():
    with pytest.raises(ValueError, match="task_list='x': choose one of alpaca, questions"):
        task_list("x")


def test_tasks_are_dialogues_of_one_turn():
    messages = task_messages(TASKS[0])
    assert messages == [
        {"role": "user", "content": "Add the numbers.\n\n2 and 3", "input": "2 and 3"},
        {"role": "assistant", "content": "5"},
    ]
    assert [task_of(task_messages(task)) for task in TASKS] == TASKS
    with pytest.raises(ValueError, match="one user's turn and its answer; this dialogue has system, user, assistant"):
        task_of([{"role": "system", "content": "x"}, *messages])
