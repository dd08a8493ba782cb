"""The state of all random generators that training draws from, as plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Any]


def random_state() -> dict[str, Any]:
    """The state of the global generators of torch, numpy and Python; `torch.load(weights_only=True)` can read it."""
    return plain_state(torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True))


def plain_state(of_torch: Tensor, of_python: Any, of_numpy: Any) -> dict[str, Any]:
    """States as the generators themselves give them, as plain values."""
    kind, keys, position, has_gauss, gauss = of_numpy
    numpy = (kind, np.asarray(keys).tolist(), position, has_gauss, gauss)
    return {"torch": of_torch, "numpy": numpy, "python": of_python}


def restore_random(state: State) -> None:
    """Go on from such a state."""
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


@contextmanager
def isolated_random() -> Iterator[None]:
    """Afterwards the generators are as they were."""
    state = random_state()
    try:
        yield
    finally:
        restore_random(state)
