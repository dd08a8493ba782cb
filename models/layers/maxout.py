"""Maxout: the largest of k affine maps (Goodfellow et al., 2013)."""

from __future__ import annotations

import math

from torch import Tensor, nn


class Maxout(nn.Module):
    """The largest of k pieces: h_c(x) = max_j (W_cj x + b_cj), j = 1 … k (documented.md §4).

    The affine map before it makes k values for every output; this layer keeps the largest. With the pieces (w, b) and
    (0, 0) it is the ReLU of w x + b. It does the same in training and at inference.

    Shapes: (B, k·C, …) to (B, C, …); the pieces of one output lie side by side.

    Args:
        pieces: k, at least 1.
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 1:
            raise ValueError(f"maxout_pieces must be at least 1, but got {pieces}.")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """The largest piece of each output."""
        pieces: Tensor = x.unflatten(1, (x.shape[1] // self.pieces, self.pieces))  # (B, C, k, …)
        return pieces.amax(dim=2)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return f"pieces={self.pieces}"

    @staticmethod
    def second_moment(pieces: int) -> float:
        """E[max_j z_j²] of independent standard normals z_1 … z_k: what an affine map must undo to keep its scale.

        By the trapezoidal rule over the density k φ(z) Φ(z)^(k-1).
        """
        step = 1e-3
        grid = (step * i for i in range(-9000, 9001))
        density = (pieces * _phi(z) * _cdf(z) ** (pieces - 1) * z * z for z in grid)
        return step * sum(density)


def _phi(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _cdf(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2
