"""Training and evaluation mode for a while: of a whole network, or of its dropout alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode as long as the context lasts; then every module has its own mode again."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def dropping(network: nn.Module) -> Iterator[bool]:
    """Let dropout drop units also at inference, as long as the context lasts; all else stays as it is.

    This samples a network (Srivastava et al., 2014); the mean of several predictions is that of Gal and Ghahramani
    (2016).

    Yields:
        Whether the network has any dropout of a rate above 0.
    """
    layers = [module for module in network.modules() if isinstance(module, _DROPOUTS)]
    before: list[tuple[nn.Module, bool]] = [(layer, layer.training) for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield any(layer.p > 0 for layer in layers)
    finally:
        _restore(before)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
