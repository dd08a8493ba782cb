"""A network of this project: it knows nothing of tuner."""

from __future__ import annotations

from typing import Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class Net(L.LightningModule):
    """Tells the arms of a spiral apart.

    Args:
        hidden_dim: units of each hidden layer.
        num_layers: hidden layers.
        activation: between them.
        p_dropout: probability with which a hidden unit is dropped in training.
        lr: step size of AdamW.
        weight_decay: how strongly AdamW shrinks weights.
        arms: of the spiral.
    """

    def __init__(
        self,
        hidden_dim: int = 32,
        num_layers: int = 2,
        activation: Literal["relu", "tanh", "gelu"] = "relu",
        p_dropout: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        arms: int = 3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        layers: list[nn.Module] = []
        for number in range(num_layers):
            units = hidden_dim if number else 2
            layers += [nn.Linear(units, hidden_dim), ACTIVATIONS[activation](), nn.Dropout(p_dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dim if num_layers else 2, arms))

    def forward(self, points: Tensor) -> Tensor:
        """Logits of shape (B, arms) for points of shape (B, 2)."""
        return self.layers(points)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        points, arms = batch
        logits = self(points)
        loss = F.cross_entropy(logits, arms)
        accuracy = (logits.argmax(1) == arms).float().mean()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_acc": accuracy}, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The cross-entropy of a training batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the validation metrics of a batch."""
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the test metrics of a batch."""
        self._step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"])
