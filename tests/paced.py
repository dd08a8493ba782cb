"""A module whose epochs take as long as a test wants, and no work: for what happens beside the training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Paced(L.LightningModule):
    """Logs `val_loss`, which the rate makes smaller by the epoch; waits while a file `hold` is in its folder.

    Args:
        rate: between 0 and 1.
        pause: seconds that each epoch takes.
    """

    def __init__(self, rate: float = 0.5, pause: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.rate, self.pause = rate, pause
        self.weight = nn.Parameter(torch.ones(()))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(2, 1)))

    val_dataloader = train_dataloader

    def on_train_epoch_start(self) -> None:
        time.sleep(self.pause)
        while Path("hold").exists():
            time.sleep(0.02)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.weight**2

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.rate ** (self.current_epoch + 1))
        self.log("val_epoch", float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)
