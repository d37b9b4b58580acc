"""Requests of lm-evaluation-harness have the answers that slow forward passes give."""

import functools

import jax
import jax.numpy as jnp
import lm_eval
import numpy as np
import pytest
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from llama2_jax.evaluation.harness_model import HarnessModel
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel
from llama2_jax.text.dialogue import encode_dialogue
from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer
from tests.random_model import sharpened_params

TEXTS = ["The cat sat on the mat.", "A dog ran to the sea, and a cat came too.\nQuestion: who ran?\nAnswer: the dog"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_tokenizer(TEXTS * 20, 300))
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def config(tokenizer):
    return ModelConfig(
        vocab_size=tokenizer.vocab_size, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=96,
        scan_layers=False, scoring_tokens=1024,
    )  # fmt: skip


@pytest.fixture(scope="module")
def params(config):
    return sharpened_params(config)


@pytest.fixture(scope="module")
def model(config, params, tokenizer):
    return HarnessModel(config, params, tokenizer)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens, length):
    positions = jnp.arange(tokens.shape[1])[None]
    return LanguageModel(config).apply({"params": params}, tokens, positions, (positions < length).astype(jnp.int32))


def logps(config, params, ids):
    """Log-softmax in float64 after each token."""
    tokens = np.zeros((1, config.max_length), np.int32)
    tokens[0, : len(ids)] = ids
    logits = np.asarray(forward(config, params, tokens, len(ids))[0, : len(ids)], np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def slow_likelihood(config, params, context, continuation):
    """Of token ids, the context cut at its beginning."""
    ids = [*context, *continuation][-(config.max_length + 1) :]
    scores = logps(config, params, ids[:-1])[-len(continuation) :]
    return scores[np.arange(len(continuation)), continuation].sum()


def ask(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=index) for index, one in enumerate(arguments)]


def test_log_likelihoods_are_those_of_the_tokens_that_the_continuation_adds(model, config, params, tokenizer):
    pairs = [
        ("The cat sat on the", " mat."), ("The cat sat on the", " sea"), ("The cat ", "sat"),  # a space moves over
        ("", "The dog"), ("A dog ran to the sea. " * 12, " A cat"),
    ]  # fmt: skip
    found = model.loglikelihood(ask("loglikelihood", *pairs))
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        if context:
            stripped = context.rstrip()
            whole = tokenizer.encode(context + continuation, bos=True)
            before = tokenizer.encode(stripped, bos=True)
            after = whole[len(before) :]
        else:
            before, after = [tokenizer.bos_id], tokenizer.encode(continuation)
        assert value == pytest.approx(slow_likelihood(config, params, before, after), abs=1e-4)


def test_a_whole_text_is_scored_in_windows_of_the_context(model, config, params, tokenizer):
    texts = ["The cat sat.", "A dog ran to the sea, and a cat came too. " * 12]
    found = model.loglikelihood_rolling(ask("loglikelihood_rolling", *[(text,) for text in texts]))
    for text, value in zip(texts, found, strict=True):
        ids, length = tokenizer.encode(text, bos=True), config.max_length
        # The first window follows BOS; each later one has as much before it as fits.
        total, done = slow_likelihood(config, params, [tokenizer.bos_id], ids[:length]), length
        while done < len(ids):
            end = min(done + length, len(ids))
            total += slow_likelihood(config, params, ids[:done], ids[done:end])
            done = end
        assert value == pytest.approx(total, abs=1e-3)
    assert len(tokenizer.encode(texts[1])) > 2 * config.max_length


def test_an_answer_ends_before_the_first_stop_string(model, config, params, tokenizer):
    prompt = "A dog ran"
    ids = tokenizer.encode(prompt, bos=True)
    for _ in range(30):
        ids.append(int(logps(config, params, ids)[-1].argmax()))
    whole = tokenizer.decode(ids[len(tokenizer.encode(prompt, bos=True)) :])
    stop = whole[4:6]
    settings = {"max_gen_toks": 30, "until": [stop, "never"], "do_sample": False}
    answers = model.generate_until(ask("generate_until", (prompt, settings), (prompt, {"max_gen_toks": 30})))
    assert answers == [whole.split(stop)[0], whole]


def test_what_a_task_may_not_ask_for_is_refused(model):
    for settings, message in (
        ({"num_beams": 4}, "num_beams"),
        ({"max_gen_toks": 96}, "lower the task's max_gen_toks"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate_until(ask("generate_until", ("The", settings)))
    with pytest.raises(ValueError, match="the model's context has 96"):
        model.loglikelihood(ask("loglikelihood", ("The", " cat" * 200)))


def test_the_harness_runs_tasks_with_it(model, config, params, tokenizer):
    choices = [" mat.", " sea", " dog"]
    scores = [
        slow_likelihood(
            config, params, (before := tokenizer.encode("The cat sat on the", bos=True)),
            tokenizer.encode(f"The cat sat on the{choice}", bos=True)[len(before) :],
        )
        for choice in choices
    ]  # fmt: skip
    best = int(np.argmax(scores))

    def documents(**metadata):
        from datasets import Dataset

        return {"test": Dataset.from_list([{"label": best}, {"label": (best + 1) % 3}, {"label": best}])}

    task = {
        "task": "made_up", "custom_dataset": documents, "test_split": "test", "output_type": "multiple_choice",
        "doc_to_text": "The cat sat on the", "doc_to_choice": [choice.strip() for choice in choices],
        "doc_to_target": "label", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    manager = TaskManager(include_defaults=False)
    results = lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0)
    assert results["results"]["made_up"]["acc,none"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("gen_prefix", ["", "Answer:"])
def test_in_the_chat_format_examples_are_turns_and_ids_are_those_of_dialogues(model, tokenizer, gen_prefix):
    """So a chat model sees what it was trained on."""

    def documents(**metadata):
        from datasets import Dataset

        rows = [{"question": question, "label": 0} for question in ("Who ran?", "Who sat?")]
        return {"validation": Dataset.from_list(rows[:1]), "test": Dataset.from_list(rows[1:])}

    task = {
        "task": "made_up", "custom_dataset": documents, "test_split": "test", "fewshot_split": "validation",
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": ["the dog", "the cat"],
        "doc_to_target": "label", "num_fewshot": 1, "description": "Be brief.", "metric_list": [{"metric": "acc"}],
        **({"gen_prefix": gen_prefix} if gen_prefix else {}),
    }  # fmt: skip
    seen = []
    likelihoods = model._loglikelihood_tokens

    def watched(requests, **kwargs):
        seen.extend((context, continuation) for _, context, continuation in requests)
        return likelihoods(requests, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_loglikelihood_tokens", watched)
        lm_eval.simple_evaluate(
            model=model, tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0,
            apply_chat_template=True, fewshot_as_multiturn=True,
        )  # fmt: skip
    answer = f"{gen_prefix} the dog" if gen_prefix else "the dog"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who ran?"}, {"role": "assistant", "content": answer},
        {"role": "user", "content": "Who sat?"},
    ]  # fmt: skip
    ids = encode_dialogue(tokenizer, messages).tokens.tolist()
    if gen_prefix:
        begun = tokenizer.encode(f"[INST] Who sat? [/INST] {gen_prefix}", bos=True)
        ids = [*encode_dialogue(tokenizer, messages[:-1]).tokens.tolist(), *begun]
    assert {tuple(context) for context, _ in seen} == {tuple(ids)}
    assert len(seen) == 2
    ending = " the cat" if gen_prefix else "the cat"
    text = tokenizer.decode([*seen[1][0], *seen[1][1]])
    assert text.endswith(f"{gen_prefix or '[/INST]'}{ending}")
