"""What of a Trainer's strategy a trial can have: one device, or copies of the module on several of one machine."""

from __future__ import annotations

from typing import Any

from tuner.errors import Problem


def on_one_device(trainer: Any) -> bool:
    """Whether a Trainer of either package trains in this process, on one device."""
    return any(kind.__name__ == "SingleDeviceStrategy" for kind in type(trainer.strategy).__mro__)


def unshared(trainer: Any) -> Problem | None:
    """Why a trial cannot be trained by a Trainer's strategy, or None."""
    if trainer.num_nodes > 1:
        rule = f"must be 1, but got {trainer.num_nodes}: a trial is trained on one machine, and trials on many."
        return Problem("trainer.num_nodes", rule)
    strategy = type(trainer.strategy).__name__
    if on_one_device(trainer) or strategy == "DDPStrategy":
        return None
    rule = (
        f"must be 'auto', 'ddp' or one of ddp's variants, but got {strategy}: it divides the module itself among "
        "devices, and a trial's best weights are kept from one. Use 'ddp'."
    )
    return Problem("trainer.strategy", rule)
