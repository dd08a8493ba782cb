"""Batches of a plain DataLoader over tensors, gathered by one index instead of sample by sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset, default_collate

from tuner.data.loader import Pass, picked


class IndexedLoader:
    """The batches of a `DataLoader` over a `TensorDataset`: the same values, order, containers and random draws.

    Args:
        loader: one that is `indexable`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.tensors: tuple[Tensor, ...] = loader.dataset.tensors  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Tensor]]:
        return Pass(self, self.orders())

    def gather(self, chosen: Tensor) -> list[Tensor]:
        """The batch of these indices, shape (…, B)."""
        return [picked(tensor, chosen) for tensor in self.tensors]

    def orders(self) -> Iterator[Tensor]:
        """The next pass as indices: one tensor of shape (B,) a batch.

        As a DataLoader's own iterator does, this draws a seed for workers at once, although there are none, and a seed
        for the order when the first batch is asked for; both from torch's global generator.
        """
        _draw_seed()
        return self._orders()

    def _orders(self) -> Iterator[Tensor]:
        count = len(self.tensors[0])
        if isinstance(self.loader.sampler, RandomSampler):
            order = torch.randperm(count, generator=torch.Generator().manual_seed(_draw_seed()))
        else:
            order = torch.arange(count)
        yield from order.split(self.loader.batch_size or 1)[: len(self)]  # a last one that is dropped is beyond len


def gathered(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader that gives the same batches sooner, or the loader itself where there is none."""
    return IndexedLoader(loader) if indexable(loader) else loader  # type: ignore[arg-type]


def indexable(loader: Any) -> bool:
    """Whether a loader is a plain DataLoader over tensors: torch's own samplers and collation, and no workers."""
    if type(loader) is not DataLoader or type(loader.dataset) is not TensorDataset:
        return False
    sampler: Any = loader.sampler
    sampled = loader.batch_sampler
    shuffled = type(sampler) is RandomSampler and not sampler.replacement and sampler._num_samples is None
    return (
        (type(sampler) is SequentialSampler or shuffled)
        and sampler.data_source is loader.dataset
        and getattr(sampler, "generator", None) is None
        and loader.generator is None
        and type(sampled) is BatchSampler
        and (sampled.sampler, sampled.batch_size, sampled.drop_last) == (sampler, loader.batch_size, loader.drop_last)
        and loader.collate_fn is default_collate
        and loader.num_workers == 0
        and not loader.pin_memory
        and all(_plain(tensor) for tensor in loader.dataset.tensors)
    )


def _plain(tensor: Tensor) -> bool:
    """Whether stacking the entries of a tensor one by one is the same as indexing it once."""
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not (tensor.requires_grad or tensor.is_nested or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _draw_seed() -> int:
    return int(torch.empty((), dtype=torch.int64).random_().item())
