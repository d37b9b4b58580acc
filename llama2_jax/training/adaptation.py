"""Adapters on disk: what model.json says of them and of their base, and the checkpoints that have them alone."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh, SingleDeviceSharding

from llama2_jax.models.adapters import AdapterConfig, abstract_trained, trained_shardings
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.layer import LAYER_AXES
from llama2_jax.training.checkpoint_folder import CheckpointError, newest_checkpoint
from llama2_jax.training.checkpoints import restore_params
from llama2_jax.training.manifest import params_digest
from llama2_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Adapters, and the model that they were trained on.

    Attributes:
      adapters: which matrices have one, and of what size.
      base: the folder of the model, which may itself be one of adapters.
      digest: of the base's newest checkpoint (`manifest.params_digest`).
    """

    adapters: AdapterConfig
    base: epath.Path
    digest: str

    @classmethod
    def to(cls, base: epath.PathLike, adapters: AdapterConfig) -> "Adaptation":
        """Returns adapters of the model that is in a folder now.

        Raises:
          CheckpointError: if the folder has no checkpoint.
        """
        base = epath.Path(base)
        return cls(adapters, base, params_digest(newest_checkpoint(base / "checkpoints")))

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: epath.Path) -> "Adaptation":
        """Returns what the model.json of a folder describes; see `described`."""
        base = content["base"]["folder"]
        # Not by `..`, which a linked folder would lead elsewhere.
        place = folder.parent / base.removeprefix("../") if base.startswith("../") else epath.Path(base)
        return cls(AdapterConfig(**content["adapters"]), place, content["base"]["params"])

    def described(self, folder: epath.Path) -> dict[str, Any]:
        """Returns what the model.json of `folder` says; a base beside it is named so that both can be moved."""
        base, here = _absolute(self.base), _absolute(folder)
        beside = base.parent == here.parent
        place = f"../{base.name}" if beside else str(base)
        return {"adapters": dataclasses.asdict(self.adapters), "base": {"folder": place, "params": self.digest}}

    def check_base(self, folder: epath.PathLike) -> None:
        """Raises CheckpointError if the base is missing or another model than it was; `folder` has the adapters."""
        if not (self.base / "model.json").exists():
            raise CheckpointError(
                f"{folder} has adapters alone, and the model that they belong to is not in {self.base}: restore it, or "
                f"write where it is into base.folder of {folder}/model.json"
            )
        if params_digest(newest_checkpoint(self.base / "checkpoints")) != self.digest:
            raise CheckpointError(
                f"{folder} has adapters alone, and {self.base} is another model than the one that they were trained "
                "on: restore that, or train them again"
            )


def restore_trained(
    folder: epath.PathLike, config: ModelConfig, head: str, adapters: AdapterConfig, mesh: Mesh | None = None,
    step: int | None = None,
) -> Params:  # fmt: skip
    """Returns the adapters of a folder's newest checkpoint, as `models.adapters.init_trained` returns them.

    Args:
      folder: a folder with checkpoints/ of adapters alone.
      config, head, adapters: what model.json describes.
      mesh: the devices to split them over; by default all are on the first one.
      step: another checkpoint than the newest.

    Raises:
      CheckpointError: as `restore_params`.
    """
    shapes = abstract_trained(config, head, adapters)
    if mesh is None:
        alone = SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: alone, shapes)
    else:
        shardings = trained_shardings(head, adapters, mesh, LAYER_AXES)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )
    return restore_params(epath.Path(folder) / "checkpoints", abstract, step)


def _absolute(path: epath.Path) -> epath.Path:
    return path if "://" in str(path) else epath.Path(os.path.abspath(path))
