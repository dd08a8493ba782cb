"""Batches by one index into tensors, instead of a Python loop over samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

EVALUATED = 2**22
"""Input values that an evaluation batch holds at most: 16 MiB of float32."""


def evaluation_size(shape: Sequence[int]) -> int:
    """Samples in a validation or test batch: 1,024, or as many inputs of this shape as have 2²² values together.

    No gradients are kept there, so batches can be large; but what a network makes of them must not exhaust a memory
    that training fits into. Metrics are means over samples, so they do not depend on it.
    """
    return max(1, min(1024, EVALUATED // max(1, math.prod(shape))))


class Indexed(Protocol):
    """A loader that can say which samples the batches of its next pass hold, and give the batch of any indices."""

    tensors: tuple[Tensor, ...]

    def gather(self, chosen: Tensor) -> Any:
        """The batch of these indices, which may have more dimensions in front than those of one batch."""
        ...


class Pass:
    """One pass over an indexed loader: an iterator over its batches, of which somebody may take the indices instead.

    Args:
        loader: gives the batches.
        orders: the indices, one tensor a batch.
    """

    def __init__(self, loader: Indexed, orders: Iterator[Tensor]) -> None:
        self.loader, self.orders = loader, orders

    def __iter__(self) -> Pass:
        return self

    def __next__(self) -> Any:
        return self.loader.gather(next(self.orders))


class Order:
    """From where shuffled passes draw their order.

    Args:
        seed: with the number of the epoch, fixes each pass's order; None draws from torch's global generator, so from
            the trial's own seed.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"order_seed must be at least 0, or null for each trial's own order, but got {seed}.")
        self.seed, self.epoch = seed, 0

    @property
    def sampler(self) -> Order:
        """Itself: Lightning tells the epoch to the sampler of a loader's `batch_sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch that comes now."""
        self.epoch = epoch

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator | None:
        """What to draw the next pass from; None is torch's global generator."""
        if self.seed is None:
            return None
        return torch.Generator(device).manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)


class TensorLoader:
    """Iterate over tensors of equal length in batches, which are copies: what is done to them stays with them.

    Args:
        tensors: each of shape (N, …).
        batch_size: samples a batch; the last one may be smaller. With `shuffle`, a single sample that would be left
            for it joins the batch before, since batch normalisation cannot train on one sample.
        shuffle: draw a new order at each pass.
        order: from where; by default from torch's global generator (so `seed_everything` fixes it).
    """

    def __init__(
        self, tensors: tuple[Tensor, ...], batch_size: int, shuffle: bool = False, order: Order | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got {batch_size}.")
        self.tensors = tensors
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.batch_sampler = order or Order()

    def __len__(self) -> int:
        count = len(self.tensors[0])
        return len(batch_sizes(count, self.batch_size)) if self.shuffle else math.ceil(count / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return Pass(self, self.orders())

    def gather(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """The batch of these indices, shape (…, B)."""
        return tuple([picked(tensor, chosen) for tensor in self.tensors])

    def orders(self) -> Iterator[Tensor]:
        """The next pass as indices: one tensor of shape (B,) a batch, for whoever gathers the batches himself.

        A shuffled pass draws its order when the first batch is asked for, so with the same random state the batches
        are those of `__iter__`.
        """
        count, device = len(self.tensors[0]), self.tensors[0].device
        if self.shuffle:
            drawn = torch.randperm(count, generator=self.batch_sampler.generator(device), device=device)
            yield from drawn.split(batch_sizes(count, self.batch_size))
        else:
            yield from torch.arange(count, device=device).split(self.batch_size)


def picked(tensor: Tensor, chosen: Tensor) -> Tensor:
    """The entries of a tensor (N, …) at indices of any shape (…, B)."""
    if chosen.dim() == 1:
        return tensor.index_select(0, chosen)
    return tensor.index_select(0, chosen.flatten()).view(*chosen.shape, *tensor.shape[1:])


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """The sizes of shuffled batches of `count` samples; a last single sample joins the batch before it."""
    sizes = [batch_size] * (count // batch_size)
    left = count % batch_size
    if left == 1 and sizes:
        sizes[-1] += 1
    elif left:
        sizes.append(left)
    return sizes
