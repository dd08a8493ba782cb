"""A module for trials on several devices, whose numbers can be told by hand, and which fails where it is told to."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

TARGETS = [1.0, 2.0, 3.0, 6.0]
"""Their mean is 3."""


class Mean(L.LightningModule):
    """One weight that begins at 0 and is led half of the way to the targets' mean in every epoch.

    It logs `val_loss` as `level` on the first device, one more on the second, and so on, and `val_weight` alike on all.

    Args:
        level: the objective.
        wrong: what happens on the last device in the second epoch.
    """

    def __init__(self, level: float = 1.0, wrong: str = "") -> None:
        super().__init__()
        self.level, self.wrong = level, wrong
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.current_epoch == 1 and self.global_rank == self.trainer.world_size - 1:
            self._go_wrong()
        return (self.weight - batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.level + self.global_rank)
        self.log("val_weight", self.weight.detach(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.25)

    def _go_wrong(self) -> None:
        match self.wrong:
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raises":
                raise ValueError("the last device has had enough")
            case "out of memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            case "diverges":
                self.level = float("nan")
            case "hangs":
                time.sleep(3600)


class Targets(L.LightningDataModule):
    """All targets in one batch, which several devices divide."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.tensor(TARGETS)), batch_size=len(TARGETS))

    val_dataloader = train_dataloader
