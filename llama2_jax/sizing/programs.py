"""What a stage keeps on the devices and which compiled programs it runs there, as the dry run sizes them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from llama2_jax.sizing.abstract import device_bytes


@dataclasses.dataclass(frozen=True)
class ResidentModel:
    """A model on the devices: abstract arrays with their shardings.

    Attributes:
      name: which model.
      params: its parameters.
      opt_state: its optimizer's state; None if it is not trained.
    """

    name: str
    params: Any
    opt_state: Any = None

    @property
    def parameter_bytes(self) -> int:
        """Of each device."""
        return device_bytes(self.params)

    @property
    def optimizer_bytes(self) -> int:
        """Of each device."""
        return device_bytes(self.opt_state)


@dataclasses.dataclass(frozen=True)
class Program:
    """One of a stage's compiled programs.

    Attributes:
      name: what it does.
      compile: compiles it for shapes alone; may raise DoesNotFitError.
      uses: the models among its arguments.
      co_resident: the other models that the stage keeps on the devices meanwhile.
      model_flops: operations that the model needs, on all devices together (models/flops.py).
      calls: how often it runs in the stage's unit of work; 0: now and then, or as often as there are data.
      loop_trips: how often its loop runs where the program does not say.
    """

    name: str
    compile: Callable[[], jax.stages.Compiled]
    uses: tuple[ResidentModel, ...]
    co_resident: tuple[ResidentModel, ...]
    model_flops: float
    calls: int = 0
    loop_trips: int = 1


@dataclasses.dataclass(frozen=True)
class DeviceWork:
    """What a stage does on the devices.

    Attributes:
      programs: all that take time or memory worth naming.
      unit: what is repeated, such as "step": each program runs `calls` times in it. Empty if the data decide.
      assumptions: what was assumed of data that do not exist yet.
    """

    programs: tuple[Program, ...]
    unit: str = ""
    assumptions: tuple[str, ...] = ()
