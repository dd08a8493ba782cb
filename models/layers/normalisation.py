"""Normalisers by name, placed between the affine map and the activation (documented.md §5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from tuner.models.layers.lookup import lookup

# For features of shape (B, C): batch normalises over B for each feature, layer over C for each sample.
NORMS_1D: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": lambda _features: nn.Identity(),
}


def norm_1d(name: str, features: int) -> nn.Module:
    """Build the normaliser called `name` for inputs of shape (B, features)."""
    return lookup(NORMS_1D, name, "norm")(features)
