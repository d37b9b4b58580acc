"""Reading comprehension on local files: SQuAD and QuAC, answered in the text's own words."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from llama2_jax.evaluation.answer_overlap import best_f1, exact_match, f1
from llama2_jax.evaluation.benchmark_files import Documents, checked, file_at, read_json

# In QuAC: there is no answer in the text.
CANNOT_ANSWER = "CANNOTANSWER"


def squad(root: str) -> Documents:
    """The English part of XQuAD, 1,190 questions of SQuAD's development set; or squad/dev-v1.1.json, if it is there."""
    try:
        path = file_at(root, "squad/dev-v1.1.json")
    except ValueError:
        path = file_at(root, "squad_xquad_en/xquad.en.json.gz")
    return _of_paragraphs(path, _squad)


def quac(root: str) -> Documents:
    """QuAC's validation set, quac/val_v0.2.json, each question with those before it and their answers."""
    return _of_paragraphs(file_at(root, "quac/val_v0.2.json"), _quac)


def squad_task() -> dict[str, Any]:
    """The fields of a task: the answer behind the text and the question, scored by exact match and F1."""
    return {
        **_task(_squad_scores, ("exact_match", "f1")),
        "doc_to_text": "Title: {{title}}\n\nBackground: {{context}}\n\nQuestion: {{question}}\n\nAnswer:",
    }


def quac_task() -> dict[str, Any]:
    """The fields of a task: the dialogue so far behind the text, scored by F1 (0-shot, Brown et al. 2020, G.21)."""
    return {
        **_task(_quac_scores, ("f1",)),
        "doc_to_text": "TITLE: {{title}}\nPARAGRAPH: {{context}}\n\n{{history}}Q: {{question}}\n\nA:",
    }


def _task(scores: Callable[[Mapping, list[str]], dict[str, float]], metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "fewshot_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "generate_until",
        "doc_to_target": "{{answers[0]}}",
        "generation_kwargs": {"until": ["\n"]},
        "process_results": scores,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
    }


def _squad_scores(doc: Mapping, results: list[str]) -> dict[str, float]:
    return {"exact_match": exact_match(results[0], doc["answers"]), "f1": best_f1(results[0], doc["answers"])}


def _quac_scores(doc: Mapping, results: list[str]) -> dict[str, float]:
    return {"f1": f1(results[0], doc["answers"])}


def _of_paragraphs(path: epath.Path, convert: Callable[[Sequence[Mapping]], Documents]) -> Documents:
    found: Documents = []
    for number, article in enumerate(read_json(path, "data")):
        for part, paragraph in enumerate(article.get("paragraphs", ())):
            place = f"{path}: data[{number}].paragraphs[{part}]"
            found += checked(place, paragraph, functools.partial(_documents_of, article=article, convert=convert))
    if not found:
        raise ValueError(f"{path}: no question")
    return found


def _documents_of(paragraph: Mapping, article: Mapping, convert: Callable) -> Documents:
    shared = {"title": article["title"].replace("_", " "), "context": paragraph["context"]}
    return [{**shared, **document} for document in convert(paragraph["qas"])]


def _squad(questions: Sequence[Mapping]) -> Documents:
    return [
        {"question": row["question"], "answers": [answer["text"] for answer in row["answers"]]} for row in questions
    ]


def _quac(questions: Sequence[Mapping]) -> Documents:
    found, history = [], ""
    for row in questions:
        answers = [answer["text"].replace(CANNOT_ANSWER, "I don't know.") for answer in row["answers"]]
        found.append({"question": row["question"], "answers": answers, "history": history})
        history += f"Q: {row['question']}\n\nA: {answers[0]}\n\n"
    return found
