"""What every network shares: shapes taken from the data, the optimiser and its decay, penalty and clipping."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from tuner.models.layers.lookup import check_range
from tuner.models.layers.modes import dropping
from tuner.models.optimisation import OptimiserSettings, build_optimizer, decay_factor
from tuner.models.regularisation import lp_penalty


class Network(L.LightningModule):
    """An abstract network. A final subclass owns `__init__` and `build`; its `__init__` ends with `prepare`.

    Shapes come from the data: the first `configure_model` asks the trainer's data module for what `SHAPES` names,
    unless it was given. They are kept among the hyperparameters, so a checkpoint loads without the data.

    Every network here takes these hyperparameters; one of your own may leave any of them out of its `__init__`, and
    then `DEFAULTS` or `OptimiserSettings` say what holds.

    Args:
        learning_rate: α, the step size, above 0.
        optimizer: `sgd`, `adagrad`, `rmsprop`, `adam` or `adamw`.
        momentum: β of `sgd`, as a filter v ← β v + (1-β) g, in [0, 1): the step size does not change with it.
        nesterov: whether `sgd` looks ahead along its momentum.
        lr_schedule: the form of the decay over epochs t: `inverse` α/(1 + r t), `exponential` α γ^t,
            `sqrt` α k/√(t+1), `step` α γ^⌊t/s⌋ or `none`.
        lr_decay: the coefficient of the decay: r, γ, k or γ.
        lr_step: s of the `step` decay, in epochs.
        weight_decay: at least 0; `sgd` and `adamw` shrink weights by α · weight_decay a step, the others add it to the
            gradient as L2, where their own scaling changes its strength.
        penalty: λ of the penalty λ ‖θ‖_p^p that training adds to the loss, at least 0.
        penalty_p: p of the penalty, at least 1; 1 is L1, 2 is L2.
        clip_norm: r of clipping g ← min(1, r/‖g‖) g over all gradients together, above 0; null is none. A
            `trainer.gradient_clip_val` clips as well, so the smaller acts.
        adam_beta1: decay of Adam's mean of gradients, in [0, 1).
        adam_beta2: decay of Adam's and RMSprop's mean of squared gradients, in [0, 1).
        adam_eps: ε under Adam's and RMSprop's fraction, above 0.

    Decay and penalty leave biases, normalisers' γ and β and PReLU slopes alone.
    """

    SHAPES: ClassVar[tuple[str, ...]]
    """What `build` needs of the data; the names of the data module's attributes and of the hyperparameters."""

    ADVICE: ClassVar[str] = "Give them under model.init_args, or take other data."
    """What to do where the data do not have them."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "lr_schedule": "none",
        "lr_decay": 0.95,
        "lr_step": 10,
        "penalty": 0.0,
        "penalty_p": 2.0,
        "clip_norm": None,
        "mc_samples": 0,
        "carry_state": True,
    }
    """What holds where a network does not take a hyperparameter."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module | None = None

    @abstractmethod
    def build(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Build the network for the values of `SHAPES`, in their order."""

    def prepare(self) -> None:
        """Check the hyperparameters that all networks share, and build the network if its shapes were given.

        Raises:
            ValueError: an unknown name, or a number outside its range.
        """
        self._settings()
        self._decay()
        check_range("mc_samples", self.hyperparameter("mc_samples"), 0)
        check_range("penalty", self.hyperparameter("penalty"), 0)
        check_range("penalty_p", self.hyperparameter("penalty_p"), 1)
        if self.hyperparameter("clip_norm") is not None:
            check_range("clip_norm", self.hyperparameter("clip_norm"), 0, low_included=False)
        self.adopt(**{name: self.hyperparameter(name) for name in self.SHAPES})

    def hyperparameter(self, name: str) -> Any:
        """The value of a shared hyperparameter, also where `__init__` does not take it."""
        return self.hparams.get(name, self.DEFAULTS.get(name))

    def adopt(self, **shapes: Any) -> None:
        """Build the network for these shapes, once; does nothing while one of them is unknown."""
        if self.net is not None or any(value is None for value in shapes.values()):
            return
        self.net = self.build(*(shapes[name] for name in self.SHAPES))
        self.hparams.update({name: list(v) if isinstance(v, tuple) else v for name, v in shapes.items()})

    def shapes_of(self, data: Any) -> dict[str, Any]:
        """What `SHAPES` names, as given or else as the data module says; None where neither does."""
        shapes = {name: self.hyperparameter(name) for name in self.SHAPES}
        return shapes | {name: getattr(data, name, None) for name, value in shapes.items() if value is None}

    def take_shapes(self, data: Any) -> None:
        """Build the network for a data module, unless it is built; what was given outranks the data.

        Raises:
            ValueError: the data module does not have them all, or the network cannot be built for them.
        """
        if self.net is not None:
            return
        shapes = self.shapes_of(data)
        missing = [name for name, value in shapes.items() if value is None]
        if missing:
            lacks = "there is no data module" if data is None else f"the data module {type(data).__name__} has no "
            raise ValueError(
                f"{type(self).__name__} needs {' and '.join(self.SHAPES)}, and {lacks}"
                f"{'' if data is None else ' and no '.join(missing)}. {self.ADVICE}"
            )
        self.adopt(**shapes)

    def configure_model(self) -> None:
        """Take the shapes from the data module, if they were not given."""
        if self.net is None:
            self.take_shapes(getattr(self.trainer, "datamodule", None))

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs for a batch of inputs."""
        out: Tensor = self.built()(x)
        return out

    def built(self) -> nn.Module:
        """The network.

        Raises:
            RuntimeError: its shapes are not known yet.
        """
        if self.net is None:
            raise RuntimeError(
                f"the network has no shape yet: give {' and '.join(self.SHAPES)}, or attach a data module."
            )
        return self.net

    def averaged(self, predict: Callable[[], Tensor], samples: int) -> Tensor:
        """What `predict` returns, averaged over that many networks sampled by dropout.

        Args:
            predict: called without arguments, in evaluation mode.
            samples: how many; 0 is the one network without dropout, whose scaled weights stand for the mean (exactly so
                if it is linear).
        """
        if samples > 0:
            with dropping(self) as drops:
                if drops:
                    return torch.stack([predict() for _ in range(samples)]).mean(dim=0)
        return predict()

    def penalised(self, loss: Tensor) -> Tensor:
        """The loss that training descends: λ ‖θ‖_p^p over the weights is added to it."""
        strength = self.hyperparameter("penalty")
        if not isinstance(strength, Tensor) and strength == 0:  # a tensor stands for several networks at once
            return loss
        penalty = lp_penalty(self.parameters(), self.hyperparameter("penalty_p"))
        penalised: Tensor = loss + strength * penalty
        return penalised

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and the decay that the hyperparameters name."""
        optimizer = build_optimizer(self.parameters(), self._settings())
        factor = self._decay()
        if factor is None:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer asks, and to `clip_norm`."""
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        clip_norm = self.hyperparameter("clip_norm")
        if clip_norm is not None:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)

    def _settings(self) -> OptimiserSettings:
        names = [field.name for field in fields(OptimiserSettings) if field.name in self.hparams]
        return OptimiserSettings(**{name: self.hparams[name] for name in names})

    def _decay(self) -> Callable[[int], float] | None:
        return decay_factor(*(self.hyperparameter(name) for name in ("lr_schedule", "lr_decay", "lr_step")))
