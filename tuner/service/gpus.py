"""The GPUs that torch finds on this machine."""

from __future__ import annotations

import torch


def count() -> int:
    """How many there are."""
    return torch.cuda.device_count()


def named(device: str) -> str:
    """A device with its card's name, asked of the only GPU that this process sees; the CPU as it is."""
    if device == "cpu":
        return device
    try:
        return f"{device} {torch.cuda.get_device_name(0)}"
    except (RuntimeError, AssertionError) as error:  # what is wrong with it is found out before work begins
        return f"{device} ({str(error).splitlines()[0][:60]})"
