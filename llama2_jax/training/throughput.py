"""How well a training uses its devices: tokens per second, and model FLOPs utilization (MFU)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Throughput:
    """What MFU is measured by.

    Attributes:
      flops_per_token: operations that the model needs to train on a token (models/flops.py).
      peak_flops: dense operations per second of all devices together; None if the chip's peak is not known.
    """

    flops_per_token: float
    peak_flops: float | None

    def mfu(self, tokens_per_second: float) -> float | None:
        """Returns the share of the devices' peak that the model's own operations use; None without a known peak."""
        return tokens_per_second * self.flops_per_token / self.peak_flops if self.peak_flops else None
