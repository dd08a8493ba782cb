"""Normalisers by name, placed between the affine map and the activation (documented.md §5).

    y = γ (x - mean) / √(variance + ε) + β

What differs is over which values mean and variance are taken:

| name       | vectors (B, C)          | images (B, C, H, W)      | for each            |
|------------|-------------------------|--------------------------|---------------------|
| `batch`    | B                       | B, H, W                  | channel             |
| `layer`    | C                       | C, H, W                  | sample              |
| `group`    | C/G                     | C/G, H, W                | sample and group    |
| `instance` | (there is no position)  | H, W                     | sample and channel  |

Every normaliser learns γ and β for each channel, from 1 and 0. At inference `batch` uses running statistics of the
training batches; the others use the sample's own, as in training.

Sources: Ioffe and Szegedy (2015), Ba et al. (2016), Ulyanov et al. (2016), Wu and He (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from tuner.models.layers.lookup import lookup

Build = Callable[[int, int], nn.Module]
"""From the number of channels and the number of groups asked for."""


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

# These subtract each channel's own mean, so a bias before them has no effect.
UNBIASED = frozenset({"batch", "instance"})


def norm_1d(name: str, channels: int, groups: int = 8) -> nn.Module:
    """Build the normaliser called `name` for vectors of shape (B, channels)."""
    return lookup(NORMS_1D, name, "norm")(channels, groups)


def norm_2d(name: str, channels: int, groups: int = 8) -> nn.Module:
    """Build the normaliser called `name` for images of shape (B, channels, H, W)."""
    return lookup(NORMS_2D, name, "norm")(channels, groups)
