"""What every classifier shares: the steps, the metrics, and probabilities averaged over sampled networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models.layers.modes import evaluating
from tuner.models.metrics import accuracy, label_entropy
from tuner.models.network import Network

Batch = tuple[Tensor, Tensor]


class Classifier(Network):
    """An abstract classifier: a final subclass owns `__init__` and `build`.

    Logs `train_loss`, `train_acc`, `val_loss`, `val_acc`, `test_loss`, `test_acc`: the mean cross-entropy in nats
    (without penalty) and the share of right answers; also `val_label_entropy`, the cross-entropy of a model that knows
    nothing but how frequent the classes are.

    Besides those of `Network` it takes these hyperparameters:

    Args:
        mc_samples: at prediction, average the probabilities of that many networks sampled by dropout (Gal and
            Ghahramani, 2016); 0 predicts once, without dropout.
        input_shape: shape of one input, without the batch; by default asked of the data module.
        num_classes: number of classes; by default asked of the data module.
    """

    SHAPES = ("input_shape", "num_classes")
    ADVICE = (
        "Data of a number to predict want a regressor (tuner.models.MLPRegressor); to take whole numbers as classes, "
        "set task: classification under data.init_args."
    )

    def __init__(self) -> None:
        super().__init__()
        self._label_counts: Tensor | None = None

    @abstractmethod
    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """Build the network from inputs of shape (B, *input_shape) to logits of shape (B, num_classes)."""

    def predict_proba(self, x: Tensor, samples: int = 0) -> Tensor:
        """Class probabilities of shape (B, C), without gradients and in evaluation mode.

        Args:
            x: inputs of shape (B, *input_shape).
            samples: average over that many networks sampled by dropout; 0 is the one network without dropout, whose
                scaled weights stand for the mean (exactly so if it is linear).
        """
        with evaluating(self), torch.no_grad():
            return self._probabilities(x, samples)

    def _probabilities(self, x: Tensor, samples: int) -> Tensor:
        return self.averaged(lambda: torch.softmax(self(x), dim=1), samples)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch  # (B, *input_shape), (B,)
        logits = self(x)  # (B, C)
        loss = F.cross_entropy(logits, y)
        metrics = {f"{stage}_loss": loss, f"{stage}_acc": accuracy(logits, y)}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of a training batch, plus the penalty."""
        return self.penalised(self._step(batch, "train"))

    def on_validation_epoch_start(self) -> None:
        """Count the labels anew."""
        self._label_counts = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the validation metrics of a batch."""
        self._step(batch, "val")
        zeros = torch.zeros(self.hparams["num_classes"], dtype=batch[1].dtype, device=batch[1].device)
        counts = zeros.scatter_add(0, batch[1], torch.ones_like(batch[1]))  # bincount has no batching rule
        self._label_counts = counts if self._label_counts is None else self._label_counts + counts

    def on_validation_epoch_end(self) -> None:
        """Log the entropy of the labels, the yardstick of a model that knows nothing."""
        if self._label_counts is not None:
            self.log("val_label_entropy", label_entropy(self._label_counts).float(), sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the test metrics of a batch."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Class probabilities of shape (B, C), averaged over `mc_samples` sampled networks."""
        x = batch if isinstance(batch, Tensor) else batch[0]
        return self._probabilities(x, self.hyperparameter("mc_samples"))
