"""Batches that continue each other: a sequence laid out as parallel streams, cut into windows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tuner.data.loader import Order, Pass


class Streams:
    """Iterate over a sequence in windows of `rows` parallel streams of equal length.

    Stream b is the b-th contiguous part of the sequence. Batch i+1 continues each row where batch i ended, so a state
    can be carried from batch to batch. A batch is (x, y), both of shape (B, T): y is x one symbol further on. Both are
    copies, so what is done to them stays with them.

    Without `shift` a pass is always the same, and the last window is shorter where the streams' length asks for it: if
    `rows` divides N - 1, every symbol but the first is predicted exactly once. With `shift` a pass starts at an offset
    in [0, T) drawn from torch's global generator (so `seed_everything` fixes it), and has only full windows, as many
    at every offset.

    Args:
        symbols: the sequence, shape (N,).
        rows: B, the number of streams.
        steps: T, the length of a window.
        shift: start each pass at an offset of its own.
        order: from where the offset is drawn, if not from torch's global generator.
    """

    def __init__(self, symbols: Tensor, rows: int, steps: int, shift: bool = False, order: Order | None = None) -> None:
        self.symbols, self.rows, self.steps, self.shift = symbols, rows, steps, shift
        self.batch_sampler = order or Order()
        self.tensors: tuple[Tensor, ...] = (symbols,)

    def __len__(self) -> int:
        if self.shift:
            return max(0, (len(self.symbols) - self.steps) // self.rows // self.steps)  # at the offset T - 1
        return max(0, math.ceil((len(self.symbols) - 1) // self.rows / self.steps))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return Pass(self, self.orders())

    def gather(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The windows of these indices of inputs, shape (…, B, T)."""
        return self.symbols[chosen], self.symbols[chosen + 1]

    def orders(self) -> Iterator[Tensor]:
        """The next pass as indices of the inputs: one tensor of shape (B, T) a window."""
        if len(self) == 0:
            return
        offset = int(torch.randint(self.steps, (), generator=self.batch_sampler.generator())) if self.shift else 0
        length = (len(self.symbols) - 1 - offset) // self.rows
        starts = offset + length * torch.arange(self.rows, device=self.symbols.device).unsqueeze(1)
        for begin in range(0, min(length, len(self) * self.steps), self.steps):
            yield starts + torch.arange(begin, min(begin + self.steps, length), device=self.symbols.device)
