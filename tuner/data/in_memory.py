"""Data held in memory as tensors: three parts, standardised with the training part's statistics, and batched."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import lightning as L
import torch
from torch import Tensor

from tuner.data.loader import TensorLoader, evaluation_size

Split = tuple[Tensor, Tensor]
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts, each (inputs of shape (N, …), labels of shape (N,))."""

    train: Split
    val: Split
    test: Split

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, parts: Sequence[Tensor]) -> Splits:
        """Cut samples into three parts, given as index tensors."""
        train, val, test = ((inputs[part], labels[part]) for part in parts)
        return cls(train, val, test)

    def standardised(self, over: tuple[int, ...] = (0,)) -> Splits:
        """The same with inputs as `standardise` gives them, in float32."""
        train, val, test = standardise(self.train[0], self.val[0], self.test[0], over=over)
        return self._with_inputs(train.float(), val.float(), test.float())

    def reshaped(self, *shape: int) -> Splits:
        """The same with inputs of shape (N, *shape)."""
        return self._with_inputs(*(x.reshape(-1, *shape).contiguous() for x, _ in (self.train, self.val, self.test)))

    def fingerprint(self) -> str:
        """A hash of every value in every part; equal data, split and preparation give equal hashes."""
        return hash_of((*self.train, *self.val, *self.test))

    def _with_inputs(self, train: Tensor, val: Tensor, test: Tensor) -> Splits:
        return Splits((train, self.train[1]), (val, self.val[1]), (test, self.test[1]))


class InMemory(L.LightningDataModule):
    """An abstract data module: a subclass says what the splits are, this class batches them.

    Attributes:
        input_shape: shape of one input, without the batch.
        num_classes: number of classes, or None where the target is a number.
    """

    input_shape: tuple[int, ...]
    num_classes: int | None

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

    def train_dataloader(self) -> Iterable[Batch]:
        """Training batches of shape (B, …), in a new order at each epoch; `full` is the whole split in one batch."""
        self.check_alone()
        inputs, labels = self.splits().train
        size = len(labels) if isinstance(self.batch_size, str) else self.batch_size
        return TensorLoader((inputs, labels), size, shuffle=True)

    def val_dataloader(self) -> Iterable[Batch]:
        """The validation split in a fixed order, in batches as large as `evaluation_size` says."""
        return self._evaluated(self.splits().val)

    def test_dataloader(self) -> Iterable[Batch]:
        """The test split, which no trial sees."""
        return self._evaluated(self.splits().test)

    def check_alone(self) -> None:
        """Check that a trainer, if there is one, trains on a single device; all loaders ask this first.

        Raises:
            ValueError: it trains on several. Each would be given the same batches, since nothing divides them.
        """
        devices = 1 if self.trainer is None else self.trainer.world_size
        if devices > 1:
            raise ValueError(
                f"tuner's data must be used with one device, but got {devices}, and each would train on the same "
                "batches. Set trainer: {devices: 1}: one trial a device; run more workers instead."
            )

    def _evaluated(self, split: Split) -> TensorLoader:
        self.check_alone()
        return TensorLoader(split, evaluation_size(split[0].shape[1:]))


def standardise(train: Tensor, *others: Tensor, over: tuple[int, ...] = (0,)) -> list[Tensor]:
    """Subtract the training split's mean and divide by its deviation, taken over the dimensions `over`.

    The default treats every feature alone; images take them over all but the channels. What is constant in the
    training split becomes 0 in all of them, since training cannot tell what another value means.
    """
    mean, deviation = moments(train, over)
    return [(tensor - mean) / deviation for tensor in (train, *others)]


def moments(train: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the dimensions `over`, which are kept with size 1; a constant's deviation is infinite."""
    mean = train.mean(dim=over, keepdim=True)
    deviation = train.std(dim=over, correction=0, keepdim=True)
    low, high = train.amin(dim=over, keepdim=True), train.amax(dim=over, keepdim=True)
    constant = low == high  # asked of the values: rounding can leave a constant's deviation above 0
    return torch.where(constant, low, mean), deviation.masked_fill(constant, torch.inf)


def hash_of(tensors: Iterable[Tensor]) -> str:
    """A hash of types, shapes and values; equal tensors give equal hashes on every machine."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
