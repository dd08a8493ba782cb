"""Normalisers by name, placed between the affine map and the activation (documented.md §5).

    y = γ (x - mean) / √(variance + ε) + β

What differs is over which values mean and variance are taken:

| name       | vectors (B, C)          | images (B, C, H, W)      | sequences (B, T, C)          | for each            |
|------------|-------------------------|--------------------------|------------------------------|---------------------|
| `batch`    | B                       | B, H, W                  | B, T                         | channel             |
| `layer`    | C                       | C, H, W                  | C, at each position alone    | sample              |
| `group`    | C/G                     | C/G, H, W                | C/G, at each position alone  | sample and group    |
| `instance` | (there is no position)  | H, W                     | T                            | sample and channel  |

Every normaliser learns γ and β for each channel, from 1 and 0. At inference `batch` uses running statistics of the
training batches; the others use the sample's own, as in training. In sequences `layer` and `group` treat every
position by itself, so that none sees a later one; `batch` and `instance` do look ahead.

Sources: Ioffe and Szegedy (2015), Ba et al. (2016), Ulyanov et al. (2016), Wu and He (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from tuner.models.layers.lookup import lookup

Build = Callable[[int, int], nn.Module]
"""From the number of channels and the number of groups asked for."""


class ChannelsLast(nn.Module):
    """A normaliser of (B, C, T), for sequences of shape (B, T, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, shape (B, T, C) to (B, T, C)."""
        normalised: Tensor = self.norm(x.transpose(1, 2))
        return normalised.transpose(1, 2)


class EachPosition(nn.Module):
    """A normaliser of (B, C), for every position of sequences of shape (B, T, C) by itself."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, shape (B, T, C) to (B, T, C)."""
        normalised: Tensor = self.norm(x.flatten(0, 1))
        return normalised.view_as(x)


def groups_of(channels: int, groups: int, smallest: int) -> int:
    """The largest number of equal groups, at most `groups`, of at least `smallest` channels each (else 1)."""
    fitting = (g for g in range(1, min(groups, channels) + 1) if channels % g == 0 and channels // g >= smallest)
    return max(fitting, default=1)


def _none(_channels: int, _groups: int) -> nn.Module:
    return nn.Identity()


def _vector_group(channels: int, groups: int) -> nn.Module:
    return nn.GroupNorm(groups_of(channels, groups, smallest=2), channels)  # one value alone would become 0


def _image_group(channels: int, groups: int) -> nn.Module:
    return nn.GroupNorm(groups_of(channels, groups, smallest=1), channels)


NORMS_1D: Mapping[str, Build] = {
    "batch": lambda channels, _: nn.BatchNorm1d(channels),
    "layer": lambda channels, _: nn.LayerNorm(channels),
    "group": _vector_group,
    "none": _none,
}

NORMS_2D: Mapping[str, Build] = {
    "batch": lambda channels, _: nn.BatchNorm2d(channels),
    "layer": lambda channels, _: nn.GroupNorm(1, channels),  # over C, H, W, with γ and β for each channel
    "group": _image_group,
    "instance": lambda channels, _: nn.InstanceNorm2d(channels, affine=True),
    "none": _none,
}

NORMS_SEQUENCE: Mapping[str, Build] = {
    "batch": lambda channels, _: ChannelsLast(nn.BatchNorm1d(channels)),
    "layer": lambda channels, _: nn.LayerNorm(channels),
    "group": lambda channels, groups: EachPosition(_vector_group(channels, groups)),
    "instance": lambda channels, _: ChannelsLast(nn.InstanceNorm1d(channels, affine=True)),
    "none": _none,
}

# These subtract each channel's own mean, so a bias before them has no effect.
UNBIASED = frozenset({"batch", "instance"})


def norm_1d(name: str, channels: int, groups: int = 8) -> nn.Module:
    """Build the normaliser called `name` for vectors of shape (B, channels)."""
    return lookup(NORMS_1D, name, "norm")(channels, groups)


def norm_2d(name: str, channels: int, groups: int = 8) -> nn.Module:
    """Build the normaliser called `name` for images of shape (B, channels, H, W)."""
    return lookup(NORMS_2D, name, "norm")(channels, groups)


def norm_sequence(name: str, channels: int, groups: int = 8) -> nn.Module:
    """Build the normaliser called `name` for sequences of shape (B, T, channels)."""
    return lookup(NORMS_SEQUENCE, name, "norm")(channels, groups)
