"""Benchmarks on local files: documents of each format, and what is wrong with a file by its place."""

import csv
import gzip
import io
import json

import pytest

from llama2_jax.evaluation import benchmark_exams, benchmark_reading
from llama2_jax.evaluation import benchmark_files as files
from llama2_jax.evaluation.benchmark_exams import AGIEVAL
from llama2_jax.evaluation.benchmark_tasks import DESCRIPTIONS, GROUPS, parts_of, tasks


def write(root, name, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "piqa/valid.jsonl", '{"goal": "dresser", "sol1": "a", "sol2": "b"}\n' * 2)
    write(tmp_path, "piqa/valid-labels.lst", "0\n1\n")
    write(tmp_path, "boolq/dev.jsonl.gz", json.dumps({"passage": "P.", "question": "is it", "answer": True}))
    rows = [{"question": "Q", "choices": {"A": "one", "B": "two"}, "answer": "B"}]
    write(tmp_path, "hellaswag_subset/hellaswag.json.gz", json.dumps({"dataset": "hellaswag", "dev": [], "test": rows}))
    instruction = (
        "Please choose the correct answer to the question: Why?\n\nAnswer1: It is. Answer2: It was.\n\n"
        "Answer format: answer1/answer2"
    )
    for name in ("ARC-Easy", "ARC-Challenge"):
        row = {"instruction": instruction, "answer": "answer2"}
        write(tmp_path, f"llm_adapters/{name}_test.json.gz", json.dumps([row]))
    write(
        tmp_path, "openbookqa/test.tsv",
        "ID\tQuestion Stem\tChoices\tComplete Question\tAnswer Key\n"
        '7\tIt "is\t(A) up (B) down (C) left (D) right\t\tC\n',
    )  # fmt: skip
    for split in ("dev", "test"):
        path = tmp_path / f"mmlu/{split}/world_religions_{split}.csv"
        path.parent.mkdir(parents=True)
        with path.open("w") as file:
            csv.writer(file).writerow(["Who,\nwhere?", "a", "b", "c", "d", "D"])
    for split in ("train", "test"):
        write(tmp_path, f"gsm8k/{split}.jsonl.gz", json.dumps({"question": "1+1", "answer": "It is 2\n#### 2"}))
    write(tmp_path, "nq_open/NQ-open.dev.jsonl", '{"question": "when", "answer": ["1972", "72"]}')
    write(tmp_path, "triviaqa_subset/TriviaQA.csv.gz", 'question,answer,false_answer\n"Who?","A; B, C",D\n')
    write(
        tmp_path, "svamp/SVAMP.json.gz", json.dumps([{"Body": "Two and two", "Question": "How many?", "Answer": 4.0}])
    )
    exams(tmp_path)
    reading(tmp_path)
    return str(tmp_path)


def exams(root):
    """AGIEval, BBH and MATH."""
    exam = {"passage": None, "question": "Q?", "options": ["(A)one", "(B two"], "label": "B"}
    for name in AGIEVAL:
        write(root, f"agieval/{name}.jsonl.gz", json.dumps(exam))
    shots = {name: str(exam | {"passage": "P.", "label": "A"}) for name in AGIEVAL if name != "sat-en-without-passage"}
    table = io.StringIO()
    writer = csv.DictWriter(table, ["", *shots])
    writer.writeheader()
    writer.writerows([{"": "sample 1", **shots}, {"": "explanation 1", **dict.fromkeys(shots, "Because.")}])
    write(root, "agieval/few_shot_prompts.csv.gz", table.getvalue())
    write(root, "bbh/navigate.json", json.dumps({"canary": "", "examples": [{"input": "Left?", "target": "Yes"}]}))
    write(root, "bbh/cot-prompts/navigate.txt", "canary\n-----\nIf you follow.\n\nQ: Up?\nA: So the answer is No.\n")
    problem = {"problem": "1+1?", "solution": "$\\boxed{2}$", "answer": "2"}
    write(root, "math500/test.jsonl.gz", "\n".join(json.dumps(problem | {"problem": f"{n}+1?"}) for n in range(3)))


def reading(root):
    """SQuAD and QuAC; Social IQa and WinoGrande in LLM-Adapters' words."""
    asked = {"id": "1", "question": "Who?", "answers": [{"text": "a king", "answer_start": 0}]}
    article = {"title": "Old_King", "paragraphs": [{"context": "There was a king.", "qas": [asked]}]}
    write(root, "squad_xquad_en/xquad.en.json.gz", json.dumps({"data": [article]}))
    unanswered = {**asked, "question": "Why?", "answers": [{"text": "CANNOTANSWER"}]}
    article = {"title": "Old_King", "paragraphs": [{"context": "There was a king.", "qas": [asked, unanswered]}]}
    write(root, "quac/val_v0.2.json", json.dumps({"data": [article]}))
    social = (
        "Please choose the correct answer to the question: Ann left. Why?\n\nAnswer1: a Answer2: b Answer3: c\n\n"
        "Answer format: answer1/answer2/answer3"
    )
    write(root, "llm_adapters/social_i_qa_test.json.gz", json.dumps([{"instruction": social, "answer": "answer3"}]))
    blank = (
        "Please choose the correct answer to fill in the blank to complete the given sentence: Ann met Sue and _ "
        "smiled.\n\nOption1: Ann Option2: Sue Answer format: option1/option2"
    )
    write(root, "llm_adapters/winogrande_test.json.gz", json.dumps([{"instruction": blank, "answer": "option2"}]))


def test_documents_of_each_format(root):
    assert files.piqa(root)[1] == {"goal": "dresser", "choices": ["a", "b"], "label": 1}
    assert files.boolq(root) == [{"passage": "P.", "question": "is it", "label": 1}]
    assert files.hellaswag(root) == [{"query": "Q", "choices": ["one", "two"], "label": 1}]
    expected = [{"question": "Why?", "choices": ["It is.", "It was."], "label": 1}]
    assert files.arc_easy(root) == files.arc_challenge(root) == expected
    (openbook,) = files.openbookqa(root)
    assert openbook == {"question": 'It "is', "choices": ["up", "down", "left", "right"], "label": 2}
    (religions,) = files.mmlu(root, "world_religions", "test")
    assert religions == {"question": "Who,\nwhere?", "choices": list("abcd"), "label": 3}
    assert files.triviaqa(root) == [{"question": "Who?", "answer": ["A", "B, C"]}]
    assert files.social_iqa(root) == [{"question": "Ann left. Why?", "choices": ["a", "b", "c"], "label": 2}]
    assert files.winogrande(root) == [
        {"choices": ["Ann met Sue and Ann", "Ann met Sue and Sue"], "rest": "smiled.", "label": 1}
    ]
    assert files.svamp(root) == [{"question": "Two and two How many?", "answer": "4"}]


@pytest.mark.parametrize(
    ("read", "name", "content", "message"),
    [
        (files.boolq, "boolq/dev.jsonl.gz", '{"passage": "P."}', r"dev.jsonl.gz:1: no field 'question'; it has"),
        (files.nq_open, "nq_open/NQ-open.dev.jsonl", '{"question": "a"\n', r"NQ-open.dev.jsonl:1"),
        (files.nq_open, "nq_open/NQ-open.dev.jsonl", "", r"NQ-open.dev.jsonl: no row"),
        (files.piqa, "piqa/valid-labels.lst", "0\n", r"2 rows in valid.jsonl and 1 in valid-labels.lst"),
        (
            files.openbookqa, "openbookqa/test.tsv", "Question Stem\tChoices\tAnswer Key\nQ\t(A) up (B) down\tC\n",
            r"test.tsv: row 2: choice 3 is right of 2",
        ),
        (
            lambda root: files.mmlu(root, "world_religions", "test"), "mmlu/test/world_religions_test.csv", "Q,a,b,A\n",
            r"row 1: 4 columns; wanted a question, four choices and a letter",
        ),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_by_its_place(root, tmp_path, read, name, content, message):
    write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        read(root)


def test_a_missing_file_and_an_unknown_task_are_told(tmp_path):
    with pytest.raises(ValueError, match="no such file; wanted the benchmark's documents there"):
        files.boolq(str(tmp_path))
    with pytest.raises(ValueError, match="no task 'bolq' on local files; there are piqa, boolq"):
        tasks(str(tmp_path), ["bolq"])


def test_the_harness_makes_requests_of_every_task(root):
    from lm_eval.tasks import TaskManager

    names = [*DESCRIPTIONS, *GROUPS]
    made = TaskManager(include_defaults=False).load(tasks(root, names, max_new_tokens=7))["tasks"]
    assert set(made) == {f"{part}_local" for name in names for part in parts_of(root, name)}
    prompts = {}
    for name, task in made.items():
        task.set_config("num_fewshot", 1 if name.startswith(("mmlu", "gsm8k", "agieval", "math")) else 0)
        task.set_fewshot_seed(0)
        task.build_all_requests(limit=1)
        prompts[name] = task.instances[0].args
    assert prompts["boolq_local"] == ("P.\nQuestion: is it?\nAnswer:", " no")
    context, choice = prompts["mmlu_world_religions_local"]
    assert context.startswith("The following are multiple choice questions (with answers) about world religions.\n\n")
    assert context.count("Who,\nwhere?") == 2 and context.count("Answer: D") == 1 and choice == " A"
    context, settings = prompts["nq_open_local"]
    assert context == "Answer these questions:\n\nQ: when?\nA:"
    assert settings["max_gen_toks"] == 7 and settings["until"] == ["\n", ".", ","]
    assert prompts["gsm8k_local"][0] == "Question: 1+1\nAnswer: It is 2\n#### 2\n\nQuestion: 1+1\nAnswer:"
    query = "Q: Q? Answer Choices: (A)one (B two\nA: Among A through B, the answer is"
    assert prompts["agieval_sat-en-without-passage_local"] == (f"P. {query} A\n\n{query}", " A")
    assert prompts["bbh_navigate_local"][0] == (
        "If you follow.\n\nQ: Up?\nA: So the answer is No.\n\nQ: Left?\nA: Let's think step by step.\n"
    )
    assert prompts["math_local"][0] == "Problem: 1+1?\nAnswer: $2$\n\nProblem: 0+1?\nAnswer:"
    assert prompts["squad_local"][0] == (
        "Title: Old King\n\nBackground: There was a king.\n\nQuestion: Who?\n\nAnswer:"
    )
    assert prompts["winogrande_local"] == ("Ann met Sue and Ann", " smiled.")


def test_quac_asks_with_the_questions_before_and_their_answers(root):
    _, second = benchmark_reading.quac(root)
    assert second["history"] == "Q: Who?\n\nA: a king\n\n" and second["answers"] == ["I don't know."]


def test_answers_are_scored_as_they_were_given(root):
    (math,) = tasks(root, ["math"])
    scores = [math["process_results"]({"answer": "\\frac{1}{2}"}, [text]) for text in (" $1/2$", "1/2", "It is $2$.")]
    assert [score["exact_match"] for score in scores] == [1.0, 1.0, 0.0]
    (squad,) = tasks(root, ["squad"])
    assert squad["process_results"]({"answers": ["a king"]}, [" The old king."]) == {
        "exact_match": 0.0, "f1": pytest.approx(2 / 3)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("read", "name", "content", "message"),
    [
        (
            lambda root: benchmark_exams.agieval(root, "lsat-ar"), "agieval/lsat-ar.jsonl.gz",
            '{"question": "Q?", "options": ["(A)one"], "label": "C"}', r"ar.jsonl.gz:1: the label is 'C' of 1 options",
        ),
        (benchmark_reading.squad, "squad_xquad_en/xquad.en.json.gz", '{"data": []}', "wanted a list with a row"),
        (benchmark_reading.squad, "squad_xquad_en/xquad.en.json.gz", "[", r"en.json.gz: .*wanted JSON with a list"),
        (
            benchmark_reading.quac, "quac/val_v0.2.json",
            '{"data": [{"title": "T", "paragraphs": [{"context": "C."}]}]}',
            r"val_v0.2.json: data\[0\].paragraphs\[0\]: no field 'qas'",
        ),
    ],
)  # fmt: skip
def test_a_broken_exam_or_text_is_told_by_its_place(root, tmp_path, read, name, content, message):
    write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        read(root)
