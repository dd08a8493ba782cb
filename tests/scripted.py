"""Modules whose validation follows a script, and the smallest one that learns; built by class path in tests."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 3
SANITY = -777.0

RAISED: dict[str, Exception] = {
    "ValueError": ValueError("the shapes do not fit"),
    "RuntimeError": RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    "torch.OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "MemoryError": MemoryError(),
    "allocator": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    "CUDA error": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
}


def batches() -> DataLoader[Any]:
    """Three batches of two."""
    return DataLoader(TensorDataset(torch.zeros(2 * BATCHES, 1)), batch_size=2)


class Scripted(L.LightningModule):
    """Logs `val_loss` from a list, one value a validation, and what follows from it by hand.

    In epoch e, counted from 1, `train_loss` is 100·e, and `train_batch` the mean of the batches' numbers 0, 1, 2;
    `val_twice` is 2 · `val_loss`. The buffer `seen` counts the training batches, so that weights tell their age.

    Args:
        losses: `val_loss` of each validation; the last one repeats.
        metric: another name for `val_loss`.
        raises: the key in RAISED of what `training_step` raises.
        raises_at: after so many batches.
    """

    def __init__(
        self,
        losses: list[float],
        metric: str = "val_loss",
        raises: str | None = None,
        raises_at: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.losses, self.metric = losses, metric
        self.raises, self.raises_at = raises, raises_at
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.validations = 0

    def train_dataloader(self) -> DataLoader[Any]:
        return batches()

    def val_dataloader(self) -> DataLoader[Any]:
        return batches()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.raises is not None and int(self.seen) == self.raises_at:
            raise RAISED[self.raises]
        self.seen += 1
        self.log("train_loss", 100.0 * (self.current_epoch + 1), on_step=False, on_epoch=True)
        self.log("train_batch", float(batch_idx), on_step=False, on_epoch=True)
        return self.weight**2

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        value = self.losses[min(self.validations, len(self.losses) - 1)]
        if self.trainer.sanity_checking:
            value = SANITY
        self.log(self.metric, value)
        self.log("val_twice", 2 * value)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.validations += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Unvalidated(Scripted):
    """A module without a validation step."""

    validation_step = L.LightningModule.validation_step
    val_dataloader = L.LightningModule.val_dataloader


class WithoutData(Scripted):
    """A module with a validation step and nothing to validate on."""

    val_dataloader = L.LightningModule.val_dataloader


class Remembering(Scripted):
    """A module that keeps in its state something that is not a tensor."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__(losses)
        self.epochs_seen: dict[str, int] = {"epochs": 0}

    def on_train_epoch_start(self) -> None:
        self.epochs_seen = {"epochs": self.current_epoch + 1}

    def get_extra_state(self) -> dict[str, int]:
        return dict(self.epochs_seen)

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.epochs_seen = dict(state)


class Unable(Scripted):
    """A module that cannot be built with these arguments."""

    def __init__(self, losses: list[float]) -> None:
        raise ValueError("width must divide by 3")


class Points(L.LightningDataModule):
    """Sixty points around two centres, shuffled at each pass."""

    def __init__(self, batch_size: int = 6, spread: float = 0.5) -> None:
        super().__init__()
        self.batch_size, self.spread = batch_size, spread

    def setup(self, stage: str) -> None:
        draw = torch.Generator().manual_seed(1)
        labels = torch.arange(60) % 2
        points = torch.randn(60, 2, generator=draw) * self.spread + labels[:, None]
        self.train, self.val = TensorDataset(points[:40], labels[:40]), TensorDataset(points[40:], labels[40:])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, 20)


class MorePoints(Points):
    """The same points, with another default."""

    def __init__(self, batch_size: int = 10, spread: float = 0.25) -> None:
        super().__init__(batch_size, spread)


class Net(L.LightningModule):
    """One hidden layer with dropout, so that its training depends on every random number drawn."""

    def __init__(self, width: int = 4, dropout: float = 0.25, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class WideNet(Net):
    """Another class that takes the same arguments, with other defaults."""

    def __init__(self, width: int = 9, dropout: float = 0.0, lr: float = 0.05) -> None:
        super().__init__(width, dropout, lr)


class Diary(L.Callback):
    """A user's own callback: writes down the end of every epoch."""

    written: list[tuple[str, int]]

    def __init__(self, name: str = "diary") -> None:
        self.name = name
        self.written = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        DIARIES.setdefault(self.name, []).append(trainer.current_epoch)


DIARIES: dict[str, list[int]] = {}
