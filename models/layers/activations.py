"""Activations by name, each with the initialisation that keeps its signal's variance (documented.md §4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar

from torch import nn

from tuner.models.layers.lookup import lookup
from tuner.models.layers.maxout import Maxout

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # a slope of 0.01 below 0, fixed by hand
    "prelu": nn.PReLU,  # the slope is learnt; it starts at 0.25 and is kept out of weight decay
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "maxout": Maxout,
}

_RECTIFIERS = ("relu", "leaky_relu", "prelu")

Affine = TypeVar("Affine", nn.Linear, nn.Conv2d)


def activation(name: str, maxout_pieces: int = 2) -> nn.Module:
    """Build the activation called `name`; only `maxout` looks at its number of pieces."""
    build = lookup(ACTIVATIONS, name, "activation")
    return Maxout(maxout_pieces) if name == "maxout" else build()


def initialise(layer: Affine, name: str, maxout_pieces: int = 2) -> Affine:
    """Initialise the layer that feeds an activation, and return it.

    He et al. (2015) for rectifiers: a deviation of √(2 / fan-in), because half of the signal is cut off. For maxout
    √(1 / (m · fan-in)) by the same argument, m the second moment of the largest of k normals (1 for k = 2). Glorot and
    Bengio (2010) for the others, and for an output without activation (`linear`). Biases start at 0.
    """
    if name in _RECTIFIERS:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif name == "maxout":
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=math.sqrt(1 / (_second_moment(maxout_pieces) * fan_in)))
    else:
        nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@lru_cache(maxsize=16)
def _second_moment(pieces: int) -> float:
    return Maxout.second_moment(pieces)
