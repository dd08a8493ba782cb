"""What every classifier shares: the steps, the metrics, the optimiser, and shapes taken from the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models.optimisation import OptimiserSettings, build_optimizer, decay_factor

Batch = tuple[Tensor, Tensor]


class Classifier(L.LightningModule):
    """An abstract classifier: a subclass owns `__init__` and `build`, this class owns the steps and the optimiser.

    Logs `train_loss`, `train_acc`, `val_loss`, `val_acc`, `test_loss`, `test_acc`: the mean cross-entropy in nats and
    the share of right answers.

    Shapes come from the data: the first `configure_model` asks the trainer's data module for `input_shape` (without
    the batch) and `num_classes`, unless they were given. They are kept among the hyperparameters, so a checkpoint
    loads without the data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module | None = None

    @abstractmethod
    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """Build the network from inputs of shape (B, *input_shape) to logits of shape (B, num_classes)."""

    def adopt(self, input_shape: Sequence[int] | None, num_classes: int | None) -> None:
        """Build the network for these shapes, once; does nothing while one of them is unknown."""
        if self.net is None and input_shape is not None and num_classes is not None:
            self.net = self.build(tuple(input_shape), num_classes)
            self.hparams.update(input_shape=list(input_shape), num_classes=num_classes)

    def configure_model(self) -> None:
        """Take the shapes from the data module, if they were not given."""
        data = getattr(self.trainer, "datamodule", None) if self.net is None else None
        self.adopt(getattr(data, "input_shape", None), getattr(data, "num_classes", None))
        if self.net is None:
            raise ValueError(
                f"{type(self).__name__} needs input_shape and num_classes, and the data module "
                f"{type(data).__name__} has not both. Give them under model.init_args."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, num_classes) for inputs of shape (B, *input_shape)."""
        if self.net is None:
            raise RuntimeError(
                "the network has no shape yet: give input_shape and num_classes, or attach a data module."
            )
        logits: Tensor = self.net(x)
        return logits

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch  # (B, *input_shape), (B,)
        logits = self(x)  # (B, C)
        loss = F.cross_entropy(logits, y)
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        self.log_dict(
            {f"{stage}_loss": loss, f"{stage}_acc": accuracy}, on_step=False, on_epoch=True, batch_size=len(y)
        )
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of a training batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the validation metrics of a batch."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the test metrics of a batch."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Class probabilities of shape (B, C)."""
        x = batch if isinstance(batch, Tensor) else batch[0]
        return torch.softmax(self(x), dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and the decay that the hyperparameters name."""
        h: Any = self.hparams
        optimizer = build_optimizer(
            self.parameters(),
            OptimiserSettings(
                optimizer=h.optimizer,
                learning_rate=h.learning_rate,
                momentum=h.momentum,
                weight_decay=h.weight_decay,
                adam_beta1=h.adam_beta1,
                adam_beta2=h.adam_beta2,
                adam_eps=h.adam_eps,
            ),
        )
        factor = decay_factor(h.lr_schedule, h.lr_decay)
        if factor is None:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]
