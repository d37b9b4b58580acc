"""The best of a training's epochs, by the quality of answers and not by the loss (LIMA, section 3).

"We find that perplexity does not correlate with generation quality, and thus manually select checkpoints between the
5th and the 10th epochs using the held-out 50-example development set." Each epoch's model that the training kept
answers the development prompts; a judge, which the config names by its dotted path, scores the answers. The loss on the
reference answers is measured beside it, and decides nothing.

The chosen model is the stage's own. Writes epoch_quality.json and answers_epoch_<number>.jsonl.
"""

from collections.abc import Mapping, Sequence

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.dialogues import dialogue_batches, fit_to_length
from llama2_jax.evaluation.paired import mean_and_error
from llama2_jax.evaluation.rank_correlation import rank_correlation
from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, batch_loss, generation
from llama2_jax.pipeline.encoding import encode_prompts, encode_row, load_tokenizer, read_records
from llama2_jax.pipeline.finetuning import EPOCHS
from llama2_jax.pipeline.judged_answers import Prompts, judged_answers, load_judge, load_reader
from llama2_jax.pipeline.model_training import held_out_loss
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.sampling import Policy
from llama2_jax.pipeline.stage_files import read_json, write_json, write_jsonl
from llama2_jax.sharding.processes import from_first
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model, take_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Measures the kept epochs of the input `trained`, and takes the best one between the configured two.

    Returns:
      epochs: for each kept epoch its last `step`, the `loss` on the reference answers (nats a token), the mean
        `quality` of the model's own answers with its `standard_error`, and the number of `answers`.
      chosen_epoch: of the highest quality, the earlier one if two are equal.
      lowest_loss_epoch: among the same, the one that the loss would have chosen.
      loss_and_quality: Spearman's rank correlation over all kept epochs.
    """
    tokenizer, reader = load_tokenizer(inputs), load_reader(inputs)
    epochs = _kept(inputs["trained"], runtime)
    dialogues = read_records(config.development, runtime, "dialogues")
    questions = [{**row, "messages": row["messages"][:-1], "reference": row["messages"][-1]} for row in dialogues]
    asked = Prompts(*encode_prompts(questions, config.max_new_tokens, tokenizer, runtime))
    judge, key = load_judge(config.judge, inputs, runtime, ()), named_key(runtime.key, "answers")
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    measure_loss = held_out_loss(_batches(config, dialogues, tokenizer, runtime), runtime)

    def measure(first: int, _: int) -> list[dict]:
        epoch, step = epochs[first]["epoch"], epochs[first]["step"]
        params = load_model(inputs["trained"], runtime.mesh, "language", step).params
        policy = Policy(runtime.model, params, tokenizer)
        rows = judged_answers(f"epoch {epoch}", policy, asked, sampling, key, judge, runtime, reader)
        write_jsonl(runtime.folder / f"answers_epoch_{epoch}.jsonl", rows)
        loss = measure_loss(params).get("held_out_loss")
        return [{"epoch": epoch, "step": step, "loss": loss, **_quality(rows, config.quality, runtime)}]

    measured = map_resumable("epochs", len(epochs), measure, runtime, size=1)
    results = {"epochs": measured, **choose(measured, *config.epochs)}
    write_json(runtime.folder / "epoch_quality.json", results)
    step = next(one["step"] for one in measured if one["epoch"] == results["chosen_epoch"])
    from_first(lambda: take_model(inputs["trained"], runtime.folder, step))
    return results


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the epochs to choose from are none that the training keeps."""
    del count
    first, last = config.epochs
    kept = tuple(inputs["trained"].get("finetune", {}).get("kept_epochs", ())) if "trained" in inputs else ()
    if first > last or (kept and not kept[0] <= first <= last <= kept[1]):
        raise ValueError(
            f"epochs={tuple(config.epochs)}: wanted the first and the last epoch to choose from, among those that the "
            f"training keeps, kept_epochs={kept}"
        )


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation and the loss of one epoch after the other, and scores by the models of a judge."""
    version = abstract_model("epoch", model, mesh)
    programs = (
        *generation(config, model, mesh, version),
        batch_loss(version, config, model, mesh),
        *annotator_scores(config, model, mesh, (version,)),
    )
    judged = f"of the judge {config.judge.function} only its models are counted"
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS, judged))


def choose(measured: Sequence[Mapping], first: int, last: int) -> dict:
    """Returns which epoch has the best answers, which one the loss would choose, and how far the two agree.

    Args:
      measured: for each epoch `epoch`, `quality` and `loss` (None where it was not measured).
      first, last: the epochs to choose from.

    Raises:
      ValueError: if none of the measured epochs is among them.
    """
    candidates = [one for one in measured if first <= one["epoch"] <= last]
    if not candidates:
        raise ValueError(f"epochs=({first}, {last}): measured are {[one['epoch'] for one in measured]}")
    with_loss = [one for one in measured if one["loss"] is not None]
    by_loss = [one for one in candidates if one["loss"] is not None]
    return {
        "chosen_epoch": max(candidates, key=lambda one: one["quality"])["epoch"],
        "lowest_loss_epoch": min(by_loss, key=lambda one: one["loss"])["epoch"] if by_loss else None,
        "loss_and_quality": rank_correlation(
            [one["loss"] for one in with_loss], [one["quality"] for one in with_loss]
        ),
    }  # fmt: skip


def _kept(folder: epath.Path, runtime: Runtime) -> list[dict]:
    path = folder / EPOCHS
    if not path.exists():
        raise ValueError(
            f"{runtime.stage}: {folder} has kept no epochs; set its finetune.kept_epochs, such as (5, 10), and run it "
            f"again (--redo={folder.name})"
        )
    return read_json(path)


def _batches(config: ConfigDict, dialogues: Sequence[dict], tokenizer: Tokenizer, runtime: Runtime) -> list[dict]:
    """Returns the development dialogues in batches, each once; without those that are too long."""
    encoded = [encode_row(tokenizer, row) for row in dialogues]
    fitting, _ = fit_to_length(encoded, config.length, "drop", "development", tokenizer.bos_id)
    if not fitting:
        return []
    return list(dialogue_batches({"development": fitting}, config.length, config.batch_size, 1, runtime.seed))


def _quality(rows: Sequence[Mapping], field: str, runtime: Runtime) -> dict:
    known = [float(row["verdict"][field]) for row in rows if (row["verdict"] or {}).get(field) is not None]
    if not known:
        raise ValueError(f"{runtime.stage}: quality={field!r}: no verdict has that field; wanted one of the judge's")
    mean, error = mean_and_error(known)
    return {"quality": mean, "standard_error": error, "answers": len(known)}
