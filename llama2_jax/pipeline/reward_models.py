"""The two reward models side by side, and the piecewise reward made of them (section 3.2.3)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.score import rewards
from llama2_jax.models.config import ModelConfig
from llama2_jax.objectives.rewards import combine
from llama2_jax.pipeline.device_programs import Program, ResidentModel, abstract_model, score_tokens
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.training.model_folder import load_model


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the reward models say of n answers.

    Attributes:
      helpfulness, safety: logits, [n].
      logit: the piecewise reward's logit, [n].
    """

    helpfulness: np.ndarray
    safety: np.ndarray
    logit: np.ndarray

    @property
    def combined(self) -> np.ndarray:
        """The piecewise reward R_c in (0, 1), [n]."""
        return 1 / (1 + np.exp(-self.logit.astype(np.float64)))

    def row(self, index: int) -> dict[str, float]:
        """One answer's rewards as a samples row holds them."""
        return {
            "helpfulness": float(self.helpfulness[index]),
            "safety": float(self.safety[index]),
            "combined": float(self.combined[index]),
        }


@dataclasses.dataclass(frozen=True)
class RewardModels:
    """The helpfulness and the safety reward model and the threshold of the rule that combines them."""

    model: ModelConfig
    helpfulness: dict
    safety: dict
    safety_threshold: float

    def score(self, sequences: Sequence[Sequence[int]], safety_prompts: Sequence[bool]) -> Scores:
        """Scores prompts with their answers (ids, the answer's last token last)."""
        helpfulness = rewards(self.model, self.helpfulness, sequences)
        safety = rewards(self.model, self.safety, sequences)
        logit = combine(safety, helpfulness, np.asarray(safety_prompts, bool), self.safety_threshold)
        return Scores(helpfulness, safety, np.asarray(logit))


def load_reward_models(inputs: Inputs, runtime: Runtime, safety_threshold: float) -> RewardModels:
    """Loads the stage's inputs "helpfulness" and "safety"."""
    return RewardModels(
        model=runtime.model,
        helpfulness=load_model(inputs["helpfulness"], runtime.mesh).params,
        safety=load_model(inputs["safety"], runtime.mesh).params,
        safety_threshold=safety_threshold,
    )


def abstract_reward_models(model: ModelConfig, mesh: Mesh) -> tuple[ResidentModel, ResidentModel]:
    """What `load_reward_models` puts on the devices."""
    helpfulness, safety = (abstract_model(name, model, mesh, "scalar") for name in ("helpfulness", "safety"))
    return helpfulness, safety


def annotator_scores(
    config: ConfigDict, model: ModelConfig, mesh: Mesh, held: tuple[ResidentModel, ...] = ()
) -> tuple[Program, ...]:
    """The programs by which the models among a stage's inputs annotate or judge, each on the devices in its turn.

    Args:
      config: the stage's part, whose inputs with a role that begins with "annotator" are such models.
      model, mesh: their size, and where they are.
      held: what the stage holds meanwhile.
    """
    judges = (abstract_model(role, model, mesh, "scalar") for role in config.inputs if role.startswith("annotator"))
    return tuple(score_tokens(f"{one.name} scores", model, mesh, one, (*held, one)) for one in judges)


def reward_scores(
    model: ModelConfig,
    mesh: Mesh,
    reward_models: tuple[ResidentModel, ResidentModel],
    held: tuple[ResidentModel, ...],
    rows: int = 0,
) -> tuple[Program, ...]:
    """The programs of `RewardModels.score`; `rows` are scored by each in the stage's unit of work.

    Args:
      model, mesh: of the models.
      reward_models: from `abstract_reward_models`.
      held: all models that the stage holds meanwhile, these among them.
      rows: how many.
    """
    return tuple(score_tokens(f"{one.name} scores", model, mesh, one, held, rows) for one in reward_models)
