"""The style of a network's layers: affine map, normaliser, activation, in this order (documented.md §5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tuner.models.layers.activations import ACTIVATIONS, initialise
from tuner.models.layers.activations import activation as build_activation
from tuner.models.layers.lookup import check_range, lookup
from tuner.models.layers.normalisation import NORMS_2D, UNBIASED, norm_1d, norm_2d


@dataclass(frozen=True)
class LayerStyle:
    """What every hidden layer of a network has in common.

    Attributes:
        activation: a name in `ACTIVATIONS`.
        norm: a name in `NORMS_2D`; on vectors `instance` does nothing, because they have no positions.
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the channels.
        maxout_pieces: k of the `maxout` activation.

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """

    activation: str = "relu"
    norm: str = "none"
    norm_groups: int = 8
    maxout_pieces: int = 2

    def __post_init__(self) -> None:
        lookup(ACTIVATIONS, self.activation, "activation")
        lookup(NORMS_2D, self.norm, "norm")
        check_range("norm_groups", self.norm_groups, 1)
        check_range("maxout_pieces", self.maxout_pieces, 2)

    def before(self, width: int) -> int:
        """Values that an affine map must make so that `width` of them come out of the activation."""
        return width * self.maxout_pieces if self.activation == "maxout" else width

    def nonlinearity(self) -> nn.Module:
        """The activation alone."""
        return build_activation(self.activation, self.maxout_pieces)

    def linear(self, inputs: int, units: int) -> list[nn.Module]:
        """A fully connected layer, from (B, inputs) to (B, units)."""
        norm = "none" if self.norm == "instance" else self.norm
        wide = self.before(units)
        affine = nn.Linear(inputs, wide, bias=norm not in UNBIASED)
        initialise(affine, self.activation, self.maxout_pieces)
        return [affine, norm_1d(norm, wide, self.norm_groups), self.nonlinearity()]

    def conv(self, inputs: int, channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> list[nn.Module]:
        """A convolutional layer, from (B, inputs, H, W) to (B, channels, H', W')."""
        return [*self.affine_conv(inputs, channels, kernel, stride=stride, padding=padding), self.nonlinearity()]

    def affine_conv(
        self, inputs: int, channels: int, kernel: int, *, stride: int = 1, padding: int = 0
    ) -> tuple[nn.Conv2d, nn.Module]:
        """A convolution and its normaliser, as wide as the activation after them asks for."""
        wide = self.before(channels)
        conv = nn.Conv2d(inputs, wide, kernel, stride, padding, bias=self.norm not in UNBIASED)
        initialise(conv, self.activation, self.maxout_pieces)
        return conv, norm_2d(self.norm, wide, self.norm_groups)
