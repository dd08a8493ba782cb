"""Dense block: every layer sees what all layers before it made (Huang et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.models.layers.activations import initialise
from tuner.models.layers.normalisation import UNBIASED, norm_2d
from tuner.models.layers.style import LayerStyle


def unnormalised_conv(inputs: int, channels: int, kernel: int, style: LayerStyle, *, padding: int = 0) -> nn.Conv2d:
    """A convolution whose outputs are normalised by every layer that reads them, so batch norm makes a bias useless."""
    conv = nn.Conv2d(inputs, channels, kernel, padding=padding, bias=style.norm not in UNBIASED)
    return initialise(conv, style.activation)


def _normalised(channels: int, style: LayerStyle) -> list[nn.Module]:
    return [norm_2d(style.norm, channels, style.norm_groups), style.nonlinearity()]


class DenseBlock(nn.Module):
    """x_l = h_l([x_0, x_1, …, x_{l-1}]), and the block's output is [x_0, …, x_L] (documented.md §7).

    Each h_l is norm, φ, conv 3×3, dropout, so that φ stands between the convolution before it and its own. It adds
    `growth` channels.

    Shapes: (B, inputs, H, W) to (B, inputs + layers · growth, H, W).
    """

    def __init__(self, inputs: int, growth: int, layers: int, style: LayerStyle, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for l in range(layers):  # noqa: E741 - the paper's index
            channels = inputs + l * growth
            conv = unnormalised_conv(channels, growth, 3, style, padding=1)
            regular = [nn.Dropout(dropout)] if dropout else []
            self.layers.append(nn.Sequential(*_normalised(channels, style), conv, *regular))

    def forward(self, x: Tensor) -> Tensor:
        """The inputs and what every layer made, side by side."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


def transition(inputs: int, style: LayerStyle, *, pool: bool = True) -> nn.Sequential:
    """Between two dense blocks: norm, φ, conv 1×1 to half of the channels, and average pooling by 2.

    Shapes: (B, inputs, H, W) to (B, inputs // 2, H // 2, W // 2), or without `pool` (B, inputs // 2, H, W).
    """
    conv = unnormalised_conv(inputs, inputs // 2, 1, style)
    return nn.Sequential(*_normalised(inputs, style), conv, nn.AvgPool2d(2) if pool else nn.Identity())
