"""The characters a text is made of, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands for every character that is not in the vocabulary."""


@dataclass(frozen=True)
class Vocabulary:
    """Characters by number; number 0 is the one for all others.

    Attributes:
        characters: all of them, `UNKNOWN` first.
    """

    characters: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of a text, by code point."""
        return cls((UNKNOWN, *sorted(set(text) - {UNKNOWN})))

    @cached_property
    def _table(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Number by code point; all code points beyond the last known one share its last place."""
        points = [ord(character) for character in self.characters[1:]]
        table = np.zeros(max(points, default=0) + 2, dtype=np.int64)
        table[points] = range(1, len(self.characters))
        return table

    def encode(self, text: str) -> Tensor:
        """The numbers of a text's characters, int64 of shape (N,)."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        return torch.from_numpy(self._table[np.minimum(points, len(self._table) - 1)])

    def decode(self, symbols: Tensor) -> str:
        """The text of some numbers, of any shape."""
        return "".join(self.characters[symbol] for symbol in symbols.flatten().tolist())
