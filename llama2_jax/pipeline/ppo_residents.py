"""The models that PPO keeps on the devices, for its description of device work."""

from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import abstract_model, abstract_trained, adapters_of
from llama2_jax.pipeline.general_reward import abstract_general_reward
from llama2_jax.pipeline.ppo_schedule import has_critic
from llama2_jax.pipeline.reward_models import abstract_reward_models, is_single_model
from llama2_jax.pipeline.trainable import adapter_config
from llama2_jax.sizing.programs import ResidentModel

Models = tuple[ResidentModel, ...]


class Residents(NamedTuple):
    """The models by what they are for; a tuple has one or none.

    Attributes:
      policy, critic, reference, helpfulness, safety, general: each of them. There is no safety reward model where the
        helpfulness reward model is both.
      resident: all, each once.
      beside_reference, beside_helpfulness: the same, where these are counted as models of their own: with adapters the
        policy's frozen parameters are the reference, the critic's those of the helpfulness reward model.
    """

    policy: ResidentModel
    critic: Models
    reference: ResidentModel
    helpfulness: ResidentModel
    safety: Models
    general: Models
    resident: Models
    beside_reference: Models
    beside_helpfulness: Models


def resident_models(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> Residents:
    """Returns the models of a PPO stage."""
    adapters = adapter_config(config)
    frozen = adapters is not None
    policy = abstract_trained("policy", model, config.optimizer, mesh, adapters=adapters)
    critic: Models = ()
    if has_critic(config):
        critic = (abstract_trained("critic", model, config.optimizer, mesh, "scalar", adapters),)
    reference = abstract_model("reference", model, mesh, beside=adapters)
    helpfulness, safety = abstract_reward_models(model, mesh, adapters)
    safeties = () if is_single_model(config.inputs) else (safety,)
    general = abstract_general_reward(config, model, mesh, adapters)
    averaged = ()
    if config.ema_decay:
        averaged = (ResidentModel("averaged policy", (adapters_of(policy) if frozen else policy).params),)
    others = (*safeties, *general, *averaged)
    resident = beside_reference = beside_helpfulness = (policy, *critic, reference, helpfulness, *others)
    if frozen:
        scorer = critic or (helpfulness,)
        resident = (policy, *scorer, *others)
        beside_reference = (adapters_of(policy), reference, *scorer, *others)
        beside_helpfulness = (policy, *map(adapters_of, critic), helpfulness, *others)
    return Residents(
        policy, critic, reference, helpfulness, safeties, general, resident, beside_reference, beside_helpfulness
    )
