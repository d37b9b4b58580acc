"""The helpfulness and the safety reward model, or one that is both, as one reward (section 3.2.3: piecewise)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from llama2_jax.inference.score import rewards
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import build_model
from llama2_jax.models.llama import Params, parameter_shardings, scalar_params_from
from llama2_jax.objectives.rewards import combine
from llama2_jax.pipeline.device_programs import abstract_model, score_tokens
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.stage_files import read_json, write_json
from llama2_jax.pipeline.trainable import as_frozen
from llama2_jax.sizing.programs import Program, ResidentModel
from llama2_jax.training.model_folder import load_model

OFFSET = "offset.json"

# A reward of answers: (rows, helpfulness logits [n], safety logits [n]) -> the reward's logit for each row [n].
Reward = Callable[[Sequence[Mapping], Sequence[float], Sequence[float]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the reward models say of n answers.

    Attributes:
      helpfulness, safety: logits, [n].
      logit: the reward's logit, [n].
    """

    helpfulness: Float[np.ndarray, " n"]
    safety: Float[np.ndarray, " n"]
    logit: Float[np.ndarray, " n"]

    @property
    def combined(self) -> Float[np.ndarray, " n"]:
        """The reward R_c in (0, 1)."""
        return 1 / (1 + np.exp(-self.logit.astype(np.float64)))

    def row(self, index: int) -> dict[str, float]:
        """Returns one answer's rewards as a samples row has them."""
        return {
            "helpfulness": float(self.helpfulness[index]),
            "safety": float(self.safety[index]),
            "combined": float(self.combined[index]),
        }


@dataclasses.dataclass(frozen=True)
class RewardModels:
    """The two reward models, and the reward made of their scores."""

    model: ModelConfig
    helpfulness: Params
    safety: Params
    reward: Reward
    # What each model's scores are less, where its bias was set.
    helpfulness_offset: float = 0.0
    safety_offset: float = 0.0

    def score(self, rows: Sequence[Mapping]) -> Scores:
        """Scores answers.

        Args:
          rows: each with `tokens` (ids of prompt and answer, the answer's last token last) and whatever the reward
            reads; the piecewise one reads `safety`, whether the prompt is tagged.
        """
        sequences = [row["tokens"] for row in rows]
        helpfulness = rewards(self.model, self.helpfulness, sequences) - self.helpfulness_offset
        # One model that is both is asked once.
        same = self.safety is self.helpfulness
        safety = helpfulness if same else rewards(self.model, self.safety, sequences) - self.safety_offset
        logit = self.reward(rows, helpfulness, safety)
        return Scores(helpfulness, safety, np.asarray(logit, np.float32))


def piecewise_reward(
    rows: Sequence[Mapping],
    helpfulness: Sequence[float],
    safety: Sequence[float],
    *,
    safety_threshold: float,
) -> list[float]:
    """Returns the logit of the paper's piecewise reward R_c for each answer (section 3.2.3, `objectives.combine`).

    Args:
      rows: each with `safety`: whether its prompt may bring an unsafe answer.
      helpfulness, safety: the reward models' logits, [n].
      safety_threshold: of the safety score's sigmoid.
    """
    tagged = np.asarray([row["safety"] for row in rows], bool)
    return np.asarray(combine(safety, helpfulness, tagged, safety_threshold)).tolist()


def single_reward(rows: Sequence[Mapping], helpfulness: Sequence[float], safety: Sequence[float]) -> list[float]:
    """Returns the scores of one reward model as the reward's logits, whatever the prompt (InstructGPT)."""
    del rows, safety
    return np.asarray(helpfulness).tolist()


def load_reward_models(
    inputs: Inputs, runtime: Runtime, reward: Reward, beside: AdapterConfig | None = None
) -> RewardModels:
    """Loads the stage's inputs "helpfulness" and "safety", beside adapters as `as_frozen` leaves them."""

    def load(role: str) -> Params:
        params = load_model(inputs[role], runtime.mesh, "scalar").params
        return params if beside is None else as_frozen(params, runtime.model, beside)

    helpfulness = load("helpfulness")
    safety = helpfulness if is_single_model(inputs) else load("safety")
    offsets = (read_offset(inputs[role]) for role in ("helpfulness", "safety"))
    return RewardModels(runtime.model, helpfulness, safety, reward, *offsets)


def write_offset(folder: epath.Path, offset: float) -> None:
    """Writes what the scores of a folder's reward model are less; its network has no bias of its own."""
    write_json(folder / OFFSET, {"offset": offset})


def read_offset(folder: epath.Path) -> float:
    """Returns what the scores of a folder's reward model are less; 0 where none was written."""
    path = folder / OFFSET
    return float(read_json(path)["offset"]) if path.exists() else 0.0


def scalar_start(start: epath.Path, runtime: Runtime) -> Params:
    """Returns what a reward model is trained from: the trunk of the language model in a folder, and a new head."""
    # The language model is freed: only a copy of its trunk is trained.
    params = scalar_params_from(
        load_model(start, runtime.mesh, "language").params, runtime.model, named_key(runtime.key, "head")
    )
    # The new head is made on one device and moved to where the step expects it.
    return jax.device_put(params, parameter_shardings(build_model(runtime.model, "scalar"), runtime.mesh))


def is_single_model(inputs: Mapping) -> bool:
    """Returns whether a stage's inputs "helpfulness" and "safety" are one reward model, as InstructGPT has."""
    return "safety" in inputs and inputs["safety"] == inputs["helpfulness"]


def piecewise(safety_threshold: float) -> Reward:
    """Returns the piecewise reward with a threshold."""
    return functools.partial(piecewise_reward, safety_threshold=safety_threshold)


def abstract_reward_models(
    model: ModelConfig, mesh: Mesh, beside: AdapterConfig | None = None
) -> tuple[ResidentModel, ResidentModel]:
    """Returns what `load_reward_models` puts on the devices."""
    helpfulness, safety = (abstract_model(name, model, mesh, "scalar", beside) for name in ("helpfulness", "safety"))
    return helpfulness, safety


def annotator_scores(
    config: ConfigDict, model: ModelConfig, mesh: Mesh, resident: tuple[ResidentModel, ...] = ()
) -> tuple[Program, ...]:
    """Returns the programs by which the models among a stage's inputs annotate or judge, one model at a time.

    Args:
      config: the stage's part, whose inputs with a role that begins with "annotator" are such models.
      model, mesh: their size, and where they are.
      resident: the models that the stage keeps on the devices meanwhile.
    """
    judges = (abstract_model(role, model, mesh, "scalar") for role in config.inputs if role.startswith("annotator"))
    return tuple(score_tokens(f"{one.name} scores", model, mesh, one, (*resident, one)) for one in judges)


def reward_scores(
    model: ModelConfig,
    mesh: Mesh,
    reward_models: tuple[ResidentModel, ...],
    resident: tuple[ResidentModel, ...],
    rows: int = 0,
) -> tuple[Program, ...]:
    """Returns the programs of `RewardModels.score`, or of the general reward.

    Args:
      model, mesh: of the models.
      reward_models: from `abstract_reward_models` or `abstract_general_reward`.
      resident: all models that the stage keeps on the devices, these among them.
      rows: how many answers each scores in the stage's unit of work.
    """
    return tuple(score_tokens(f"{one.name} scores", model, mesh, one, resident, rows) for one in reward_models)
