"""Multi-layer perceptron: affine map, normaliser, activation, dropout, `depth` times, then a linear output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from tuner.models.classifier import Classifier
from tuner.models.layers.activations import ACTIVATIONS, initialise
from tuner.models.layers.activations import activation as build_activation
from tuner.models.layers.lookup import check_range, lookup
from tuner.models.layers.normalisation import NORMS_1D, norm_1d
from tuner.models.optimisation import OPTIMIZERS, decay_factor


class MLP(Classifier):
    """A fully connected classifier of flattened inputs.

    Args:
        hidden_units: units of each hidden layer, at least 1.
        depth: number of hidden layers; 0 is logistic regression.
        activation: `relu`, `leaky_relu`, `prelu`, `sigmoid` or `tanh`.
        norm: `batch`, `layer` or `none`, between the affine map and the activation.
        dropout: probability with which a hidden unit is dropped in training, in [0, 1).
        learning_rate: α, the step size, above 0.
        optimizer: `sgd`, `adagrad`, `rmsprop`, `adam` or `adamw`.
        momentum: β of `sgd`, as a filter v ← β v + (1-β) g, in [0, 1): the step size does not change with it.
        lr_schedule: the form of the decay over epochs t: `inverse` α/(1 + r t), `exponential` α γ^t,
            `sqrt` α k/√(t+1), `step` α γ^⌊t/10⌋ or `none`.
        lr_decay: the coefficient of the decay: r, γ or k.
        weight_decay: shrinks weights (not biases, normalisers or PReLU slopes) by α · weight_decay a step.
        adam_beta1: decay of Adam's mean of gradients, in [0, 1).
        adam_beta2: decay of Adam's mean of squared gradients, in [0, 1).
        adam_eps: ε of Adam's denominator, above 0.
        input_shape: shape of one input; by default asked of the data module.
        num_classes: number of classes; by default asked of the data module.

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """

    def __init__(
        self,
        hidden_units: int = 128,
        depth: int = 2,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
        learning_rate: float = 0.1,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        lr_schedule: str = "inverse",
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_eps: float = 1e-8,
        input_shape: list[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if hidden_units < 1 or depth < 0:
            raise ValueError(
                f"hidden_units must be at least 1 and depth at least 0, but got {hidden_units=}, {depth=}."
            )
        check_range("dropout", dropout, 0, 1)
        check_range("learning_rate", learning_rate, 0, low_included=False)
        check_range("momentum", momentum, 0, 1)
        check_range("weight_decay", weight_decay, 0)
        check_range("adam_beta1", adam_beta1, 0, 1)
        check_range("adam_beta2", adam_beta2, 0, 1)
        check_range("adam_eps", adam_eps, 0, low_included=False)
        lookup(ACTIVATIONS, activation, "activation")
        lookup(NORMS_1D, norm, "norm")
        lookup(OPTIMIZERS, optimizer, "optimizer")
        decay_factor(lr_schedule, lr_decay)
        self.save_hyperparameters()
        self.hidden_units, self.depth, self.dropout = hidden_units, depth, dropout
        self.activation, self.norm = activation, norm
        self.adopt(input_shape, num_classes)

    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """Flatten, `depth` hidden layers, a linear output."""
        width = math.prod(input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for _ in range(self.depth):
            layers.append(initialise(nn.Linear(width, self.hidden_units), self.activation))
            layers.append(norm_1d(self.norm, self.hidden_units))
            layers.append(build_activation(self.activation))
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
            width = self.hidden_units
        layers.append(initialise(nn.Linear(width, num_classes), "linear"))
        return nn.Sequential(*layers)
