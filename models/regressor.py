"""What every regressor shares: the steps, the metrics, and targets standardised by the training split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from tuner.models.network import Network

Batch = tuple[Tensor, Tensor]


class Regressor(Network):
    """An abstract regressor of one number: a final subclass owns `__init__`, `make_output` and nothing else.

    The network predicts the standardised target (y - mean) / deviation, with the training split's mean and deviation;
    `forward` gives it back in the units of the data.

    Logs `train_loss`, `val_loss`, `test_loss`: the mean squared error of the standardised target (without penalty), so
    1 is what the mean alone would reach; and `train_mae`, `val_mae`, `test_mae`, the mean absolute error in the units
    of the data.

    Besides those of `Network` it takes these hyperparameters:

    Args:
        mc_samples: at prediction, average that many networks sampled by dropout; 0 predicts once, without dropout.
        input_shape: shape of one input, without the batch; by default asked of the data module.
        target_mean: mean of the training targets; by default asked of the data module.
        target_std: deviation of the training targets, above 0; by default asked of the data module.
    """

    SHAPES = ("input_shape", "target_mean", "target_std")
    ADVICE = (
        "Data of classes want a classifier (tuner.models.MLP); to take whole numbers as such, set task: regression "
        "under data.init_args."
    )

    @abstractmethod
    def make_output(self, input_shape: Sequence[int]) -> nn.Module:
        """Build the network from inputs of shape (B, *input_shape) to standardised targets of shape (B, 1)."""

    def build(self, input_shape: Sequence[int], target_mean: float, target_std: float) -> nn.Module:
        """Build the network; the target's statistics stay among the hyperparameters."""
        if not target_std > 0:
            raise ValueError(f"target_std must be above 0, but got {target_std}: all targets are equal.")
        return self.make_output(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions of shape (B,) in the units of the data, for inputs of shape (B, *input_shape)."""
        # in float32 whatever the network computes in: the target's own scale may be large
        predicted: Tensor = self._standardised(x).float() * self.hparams["target_std"] + self.hparams["target_mean"]
        return predicted

    def _standardised(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(1)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch  # (B, *input_shape), (B,) or (B, 1); float64 targets lose nothing before they are standardised
        deviation = self.hparams["target_std"]
        standardised = ((y.flatten() - self.hparams["target_mean"]) / deviation).float()
        error = self._standardised(x).float() - standardised
        loss: Tensor = error.square().mean()
        metrics = {f"{stage}_loss": loss, f"{stage}_mae": error.abs().mean() * deviation}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error of a training batch, plus the penalty."""
        return self.penalised(self._step(batch, "train"))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the validation metrics of a batch."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the test metrics of a batch."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Predictions of shape (B,) in the units of the data, averaged over `mc_samples` sampled networks."""
        x = batch if isinstance(batch, Tensor) else batch[0]
        return self.averaged(lambda: self.forward(x), self.hyperparameter("mc_samples"))
