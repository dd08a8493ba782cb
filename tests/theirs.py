"""What others have written against `pytorch_lightning`; built by class path in tests."""

from typing import Any

import pytorch_lightning as pl  # noqa: TID251 - that is the point
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: TID251
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LitAutoEncoder(pl.LightningModule):
    """The first example of most tutorials, with hyperparameters as others have them."""

    def __init__(self, hidden: int = 3, learning_rate: float = 1e-2, **kwargs: Any):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Dropout(0.1))
        self.decoder = nn.Linear(hidden, 8)

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def shared_step(self, batch, stage):
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        x = x.flatten(1)[:, :8].float()
        loss = F.mse_loss(self(x), x)
        self.log(f"{stage}_loss", loss, prog_bar=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self.shared_step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.shared_step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.shared_step(batch, "test")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    def configure_callbacks(self):
        return [ModelCheckpoint(monitor="val_loss", save_last=False, dirpath="checkpoints")]


class Rows(pl.LightningDataModule):
    """Thirty-two rows of eight numbers, and as many targets as two devices divide."""

    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage=None):
        rows = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
        self.rows = TensorDataset(rows)

    def train_dataloader(self):
        return DataLoader(self.rows, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, 16)

    def test_dataloader(self):
        return DataLoader(self.rows, 16)
