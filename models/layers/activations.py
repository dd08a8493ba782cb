"""Activations by name, each with the initialisation that keeps its signal's variance (documented.md §4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from tuner.models.layers.lookup import lookup

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

_RECTIFIERS = ("relu", "leaky_relu", "prelu")


def activation(name: str) -> nn.Module:
    """Build the activation called `name`."""
    return lookup(ACTIVATIONS, name, "activation")()


def initialise(layer: nn.Linear, name: str) -> nn.Linear:
    """Initialise the layer that feeds an activation, and return it.

    He et al. (2015) for rectifiers, Glorot and Bengio (2010) for the others; biases start at 0.
    """
    if name in _RECTIFIERS:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
