"""What of a Trainer's strategy a trial can have: one device, or copies of the module on several of one machine."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from tuner.errors import Problem


def unshared(trainer: L.Trainer) -> Problem | None:
    """Why a trial cannot be trained by a Trainer's strategy, or None."""
    if trainer.num_nodes > 1:
        rule = f"must be 1, but got {trainer.num_nodes}: a trial is trained on one machine, and trials on many."
        return Problem("trainer.num_nodes", rule)
    if isinstance(trainer.strategy, SingleDeviceStrategy) or type(trainer.strategy) is DDPStrategy:
        return None
    rule = (
        f"must be 'auto', 'ddp' or one of ddp's variants, but got {type(trainer.strategy).__name__}: it divides the "
        "module itself among devices, and a trial's best weights are kept from one. Use 'ddp'."
    )
    return Problem("trainer.strategy", rule)
