"""Residual block: learn f(x) - x, and add x before the last activation (He et al., 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from tuner.models.layers.activations import initialise
from tuner.models.layers.style import LayerStyle


class Residual(nn.Module):
    """y = φ(r(x) + s(x)) with the branch r = conv 3×3, norm, φ, conv 3×3, norm (documented.md §7).

    s is the identity; where the shapes differ it is a 1×1 convolution. With r = 0 and no 1×1 convolution the block is
    φ(x), and without normaliser it starts so. Without the skip (`residual=False`) it is two plain layers: the network
    to compare with.

    Shapes: (B, inputs, H, W) to (B, channels, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(
        self, inputs: int, channels: int, style: LayerStyle, *, stride: int = 1, residual: bool = True
    ) -> None:
        super().__init__()
        last, norm = style.affine_conv(channels, channels, 3, padding=1)
        self.branch = nn.Sequential(*style.conv(inputs, channels, 3, stride=stride, padding=1), last, norm)
        self.skip: nn.Module | None = None
        if residual:
            if style.norm == "none":  # else the signal would grow from block to block (Zhang et al., 2019)
                nn.init.zeros_(last.weight)
            wide = style.before(channels)
            same = inputs == wide and stride == 1
            self.skip = nn.Identity() if same else initialise(nn.Conv2d(inputs, wide, 1, stride), "linear")
        self.activation = style.nonlinearity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        learnt = self.branch(x)
        out: Tensor = self.activation(learnt if self.skip is None else learnt + self.skip(x))
        return out
