"""Random states, one for each slice: what is drawn for a slice is what it would draw alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.training.rng import plain_state


@dataclass
class Draws:
    """The state of torch's, Python's and NumPy's global generators, as a slice has left them.

    Attributes:
        host: whether Python's and NumPy's are a slice's own, too. To change them costs thirty times what torch's does,
            and few trials draw from them.
        used: whether the slice has drawn from Python's or NumPy's.
    """

    torch: Tensor
    python: Any
    numpy: Any
    host: bool = True
    used: bool = False

    @classmethod
    def now(cls) -> Draws:
        """The states as they are."""
        return cls(torch.get_rng_state(), random.getstate(), np.random.get_state())

    def as_plain(self) -> dict[str, Any]:
        """The states as a snapshot has them."""
        return plain_state(self.torch, self.python, self.numpy)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Draw from these states inside, and remember where that ends; outside nothing is drawn."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self.torch)
        try:
            if self.host:
                with self._host_going_on():
                    yield
            else:
                yield
        finally:
            self.torch = torch.get_rng_state()
            torch.set_rng_state(outside)

    @contextmanager
    def _host_going_on(self) -> Iterator[None]:
        outside = random.getstate(), np.random.get_state()
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        try:
            yield
        finally:
            python, numpy = random.getstate(), np.random.get_state()
            self.used = self.used or python != self.python or not _same(numpy, self.numpy)
            self.python, self.numpy = python, numpy
            random.setstate(outside[0])
            np.random.set_state(outside[1])


def _same(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a[1], b[1])) and a[2:] == b[2:]
