"""A module whose weight tells how often it was trained; building it has every epoch written down."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tuner.training import pace

BATCHES = 2


def value_after(epochs: int, rate: float) -> float:
    """`val_loss` after so many epochs: whoever goes on from other weights, or trains one epoch twice, has another."""
    return (1.0 - rate) ** (BATCHES * epochs)


class Falling(L.LightningModule):
    """One weight, which each step makes smaller by the same share.

    Args:
        rate: the share, between 0 and 1.
        pause: seconds that each epoch takes.
    """

    def __init__(self, rate: float = 0.05, pause: float = 0.1) -> None:
        super().__init__()
        pace.EVERY_SECONDS, pace.SHARE = 0.0, 1.0  # of a worker's process, never of the tests'
        self.save_hyperparameters()
        self.rate, self.pause = rate, pause
        self.weight = nn.Parameter(torch.ones(()))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(BATCHES, 1)))

    val_dataloader = train_dataloader

    def on_train_epoch_start(self) -> None:
        time.sleep(self.pause)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.weight**2 / 2  # its gradient is the weight

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.weight.detach())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)
