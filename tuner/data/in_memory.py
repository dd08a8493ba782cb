"""Data held in memory as tensors: three parts, standardised with the training part's statistics, and batched."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor

from tuner.data.loader import Order, TensorLoader, evaluation_size

Split = tuple[Tensor, Tensor]
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts, each (inputs of shape (N, …), labels of shape (N,)).

    Attributes:
        moments: what standardisation took out of the inputs: mean and deviation, with a first dimension of 1.
    """

    train: Split
    val: Split
    test: Split
    moments: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, parts: Sequence[Tensor]) -> Splits:
        """Cut samples into three parts, given as index tensors."""
        train, val, test = ((inputs[part], labels[part]) for part in parts)
        return cls(train, val, test)

    def standardised(self, over: tuple[int, ...] = (0,)) -> Splits:
        """The same with inputs as `standardise` gives them, in float32."""
        train, val, test = standardise(self.train[0], self.val[0], self.test[0], over=over)
        made = self._with_inputs(train.float(), val.float(), test.float())
        return replace(made, moments=moments(self.train[0], over))

    def reshaped(self, *shape: int) -> Splits:
        """The same with inputs of shape (N, *shape)."""
        return self._with_inputs(*(x.reshape(-1, *shape).contiguous() for x, _ in (self.train, self.val, self.test)))

    def fingerprint(self) -> str:
        """A hash of every value in every part; equal data, split and preparation give equal hashes."""
        return hash_of((*self.train, *self.val, *self.test))

    def _with_inputs(self, train: Tensor, val: Tensor, test: Tensor) -> Splits:
        return replace(self, train=(train, self.train[1]), val=(val, self.val[1]), test=(test, self.test[1]))

    def joined(self) -> Split:
        """The training and the validation part as one."""
        return torch.cat([self.train[0], self.val[0]]), torch.cat([self.train[1], self.val[1]])


class InMemory(L.LightningDataModule):
    """An abstract data module: a subclass says what the splits are, this class batches them.

    Attributes:
        input_shape: shape of one input, without the batch.
        num_classes: number of classes, or None where the target is a number.
        joined: whether training takes the validation part as well.
    """

    RAW: ClassVar[str] = "the data as they were given"
    """What the inputs were before they were standardised."""

    input_shape: tuple[int, ...]
    num_classes: int | None
    joined: bool = False

    def __init__(self, batch_size: int | str, order_seed: int | None = None) -> None:
        super().__init__()
        self.order = Order(order_seed)
        if batch_size != "full" and (isinstance(batch_size, str) or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number or 'full', and at least 1, but got {batch_size!r}.")
        self.batch_size = batch_size

    @abstractmethod
    def splits(self) -> Splits:
        """The three splits; called once for each stage, so it should remember."""

    def fingerprint(self) -> str:
        """A hash of the data as the trials see it."""
        return self.splits().fingerprint()

    def join_validation(self) -> None:
        """From now on, train on the validation part as well; nothing is left then to choose an epoch by.

        The inputs stay as they were standardised, so what was trained before takes the same inputs.
        """
        self.joined = True

    def preparation(self) -> dict[str, Any]:
        """How inputs are made from raw data, as plain values, for programs that use a network without this class.

        Returns:
            `inputs`, in words what the raw values are, and where they were standardised, `subtract` and then `multiply`
            by: numbers, or lists that broadcast over an input; 0 for what was constant in training.
        """
        return standardisation(self.RAW, self.splits().moments)

    def train_dataloader(self) -> Iterable[Batch]:
        """Training batches of shape (B, …), in a new order at each epoch; `full` is the whole split in one batch."""
        self.check_alone()
        inputs, labels = self.splits().joined() if self.joined else self.splits().train
        size = len(labels) if isinstance(self.batch_size, str) else self.batch_size
        return TensorLoader((inputs, labels), size, shuffle=True, order=self.order)

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


def standardisation(raw: str, taken_out: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """Standardisation as plain values.

    Args:
        raw: in words, what the values were before.
        taken_out: mean and deviation, with a first dimension of 1; None where nothing was.
    """
    told: dict[str, Any] = {"inputs": raw}
    if taken_out is not None:
        mean, deviation = (t.double().flatten() if t.numel() == 1 else t.double() for t in taken_out)
        told |= {"subtract": mean[0].tolist(), "multiply": (1 / deviation)[0].tolist()}
    return told


def hash_of(tensors: Iterable[Tensor]) -> str:
    """A hash of types, shapes and values; equal tensors give equal hashes on every machine."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
