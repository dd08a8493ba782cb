"""Multi-layer perceptron: affine map, normaliser, activation, dropout, `depth` times, then a linear output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from tuner.models.classifier import Classifier
from tuner.models.layers.activations import initialise
from tuner.models.layers.lookup import check_range, lookup
from tuner.models.layers.normalisation import NORMS_1D
from tuner.models.layers.style import LayerStyle
from tuner.models.regressor import Regressor


class MLP(Classifier):
    """A fully connected classifier of flattened inputs.

    h_0 = x, h_l = dropout(φ(norm(W_l h_{l-1} + b_l))) for l = 1 … depth, logits = W h_depth + b. Inputs of shape
    (B, *input_shape), logits of shape (B, num_classes). At inference dropout does nothing, and batch normalisation
    takes its running statistics. Source: Rumelhart et al. (1986), documented.md §7.

    Args:
        hidden_units: units of each hidden layer, at least 1.
        depth: number of hidden layers; 0 is logistic regression.
        activation: φ: `relu`, `leaky_relu`, `prelu`, `sigmoid`, `tanh` or `maxout`.
        norm: `batch`, `layer`, `group` or `none`, between the affine map and the activation.
        dropout: probability with which a hidden unit is dropped in training, in [0, 1).
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the units.
        maxout_pieces: k of `maxout`, at least 2.

    The other arguments are those of `Network` and `Classifier`.

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """

    def __init__(
        self,
        hidden_units: int = 256,
        depth: int = 2,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.1,
        norm_groups: int = 8,
        maxout_pieces: int = 2,
        learning_rate: float = 0.3,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        nesterov: bool = False,
        lr_schedule: str = "exponential",
        lr_decay: float = 0.95,
        lr_step: int = 10,
        weight_decay: float = 1e-3,
        penalty: float = 0.0,
        penalty_p: float = 2.0,
        clip_norm: float | None = None,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_eps: float = 1e-8,
        mc_samples: int = 0,
        input_shape: list[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.style = _checked(hidden_units, depth, dropout, LayerStyle(activation, norm, norm_groups, maxout_pieces))
        self.prepare()

    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """Flatten, `depth` hidden layers, a linear output."""
        h = self.hparams
        return perceptron(input_shape, num_classes, h["hidden_units"], h["depth"], self.style, h["dropout"])


class MLPRegressor(Regressor):
    """A fully connected regressor of flattened inputs: `MLP` with one output, for one number in the data's units.

    Args:
        hidden_units: units of each hidden layer, at least 1.
        depth: number of hidden layers; 0 is linear regression.
        activation: φ: `relu`, `leaky_relu`, `prelu`, `sigmoid`, `tanh` or `maxout`.
        norm: `batch`, `layer`, `group` or `none`, between the affine map and the activation.
        dropout: probability with which a hidden unit is dropped in training, in [0, 1).
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the units.
        maxout_pieces: k of `maxout`, at least 2.

    The other arguments are those of `Network` and `Regressor`.

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """

    def __init__(
        self,
        hidden_units: int = 256,
        depth: int = 2,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.1,
        norm_groups: int = 8,
        maxout_pieces: int = 2,
        learning_rate: float = 0.05,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        nesterov: bool = False,
        lr_schedule: str = "exponential",
        lr_decay: float = 0.95,
        lr_step: int = 10,
        weight_decay: float = 1e-3,
        penalty: float = 0.0,
        penalty_p: float = 2.0,
        clip_norm: float | None = None,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_eps: float = 1e-8,
        mc_samples: int = 0,
        input_shape: list[int] | None = None,
        target_mean: float | None = None,
        target_std: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.style = _checked(hidden_units, depth, dropout, LayerStyle(activation, norm, norm_groups, maxout_pieces))
        self.prepare()

    def make_output(self, input_shape: Sequence[int]) -> nn.Module:
        """Flatten, `depth` hidden layers, one linear output."""
        h = self.hparams
        return perceptron(input_shape, 1, h["hidden_units"], h["depth"], self.style, h["dropout"])


def perceptron(
    input_shape: Sequence[int], outputs: int, units: int, depth: int, style: LayerStyle, dropout: float
) -> nn.Sequential:
    """Flatten, `depth` hidden layers of `units`, a linear output: (B, *input_shape) to (B, outputs)."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for _ in range(depth):
        layers += style.linear(width, units)
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    return nn.Sequential(*layers, initialise(nn.Linear(width, outputs), "linear"))


def _checked(hidden_units: int, depth: int, dropout: float, style: LayerStyle) -> LayerStyle:
    check_range("hidden_units", hidden_units, 1)
    check_range("depth", depth, 0)
    check_range("dropout", dropout, 0, 1)
    lookup(NORMS_1D, style.norm, "norm")  # on vectors there is no `instance`
    return style
