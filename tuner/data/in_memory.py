"""Data held in memory as tensors: split by class and seed, standardised with the training split's statistics."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass

import lightning as L
import torch
from torch import Tensor

from tuner.data.loader import TensorLoader

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts, each (inputs of shape (N, …), labels of shape (N,))."""

    train: Split
    val: Split
    test: Split

    def fingerprint(self) -> str:
        """A hash of every value in every part; equal data, split and preparation give equal hashes."""
        digest = hashlib.sha256()
        for tensor in (*self.train, *self.val, *self.test):
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


class InMemory(L.LightningDataModule):
    """An abstract data module: a subclass says what the splits are, this class batches them.

    Attributes:
        input_shape: shape of one input, without the batch.
        num_classes: number of classes.
    """

    input_shape: tuple[int, ...]
    num_classes: int

    def __init__(self, batch_size: int | str) -> None:
        super().__init__()
        if batch_size != "full" and (isinstance(batch_size, str) or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number or 'full', and at least 1, but got {batch_size!r}.")
        self.batch_size = batch_size

    @abstractmethod
    def splits(self) -> Splits:
        """The three splits; called once for each stage, so it should remember."""

    def fingerprint(self) -> str:
        """A hash of the data as the trials see it."""
        return self.splits().fingerprint()

    def train_dataloader(self) -> TensorLoader:
        """Training batches of shape (B, …), in a new order at each epoch; `full` is the whole split in one batch."""
        inputs, labels = self.splits().train
        size = len(labels) if isinstance(self.batch_size, str) else self.batch_size
        return TensorLoader((inputs, labels), size, shuffle=True)

    def val_dataloader(self) -> TensorLoader:
        """The validation split, in large batches: no gradients are kept, and metrics are means over samples."""
        return TensorLoader(self.splits().val, 1024)

    def test_dataloader(self) -> TensorLoader:
        """The test split, which no trial sees."""
        return TensorLoader(self.splits().test, 1024)


def stratified(labels: Tensor, shares: tuple[float, ...], seed: int) -> list[Tensor]:
    """Split sample indices so that every class keeps its share in every part.

    Args:
        labels: shape (N,), whole numbers.
        shares: sizes of all parts but the first, as shares of N.
        seed: fixes the split; it is the data's own, not the trial's, so all trials see the same one.

    Returns:
        Index tensors of the first part (what is left) and of each further part.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]
    for label in labels.unique():
        indices = (labels == label).nonzero().flatten()
        indices = indices[torch.randperm(len(indices), generator=generator)]
        sizes = [round(share * len(indices)) for share in shares]
        for part, chunk in zip(parts, indices.split([len(indices) - sum(sizes), *sizes]), strict=True):
            part.append(chunk)
    return [torch.cat(part).sort().values for part in parts]


def standardise(train: Tensor, *others: Tensor, over: tuple[int, ...] = (0,)) -> list[Tensor]:
    """Subtract the training split's mean and divide by its deviation, taken over the dimensions `over`.

    The default treats every feature alone; images take them over all but the channels. Constants become 0.
    """
    mean = train.mean(dim=over, keepdim=True)
    deviation = train.std(dim=over, correction=0, keepdim=True)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return [(tensor - mean) / deviation for tensor in (train, *others)]
