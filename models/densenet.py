"""DenseNet: every layer sees what all layers before it made (Huang et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tuner.models.classifier import Classifier
from tuner.models.layers.activations import initialise
from tuner.models.layers.dense_block import DenseBlock, transition, unnormalised_conv
from tuner.models.layers.image import check_positions, image_shape
from tuner.models.layers.lookup import check_range
from tuner.models.layers.normalisation import norm_2d
from tuner.models.layers.style import LayerStyle


class DenseNet(Classifier):
    """A classifier of images: conv 3×3, dense blocks with transitions between them, norm, φ, mean, linear.

    The first convolution makes 2 · hidden_units channels, every layer of a block adds hidden_units, and a transition
    halves the channels and the sides of the image (while both are at least 2).

    Images of shape (B, channels, H, W), logits of shape (B, num_classes). At inference dropout does nothing, and batch
    normalisation takes its running statistics. Source: Huang et al. (2017), documented.md §7.

    Args:
        hidden_units: channels that each layer adds (the growth rate), at least 1.
        depth: layers a dense block, at least 1.
        blocks: number of dense blocks, at least 1.
        activation: φ: `relu`, `leaky_relu`, `prelu`, `sigmoid` or `tanh`; it stands before the convolutions, so it
            cannot be `maxout`.
        norm: `batch`, `layer`, `group`, `instance` or `none`, before each activation.
        dropout: probability with which a layer's new values are dropped in training, in [0, 1).
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the channels.

    The other arguments are those of `Network` and `Classifier`.

    Raises:
        ValueError: an unknown name, a number outside its range, or inputs that are no images.
    """

    def __init__(
        self,
        hidden_units: int = 16,
        depth: int = 3,
        blocks: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.1,
        norm_groups: int = 8,
        learning_rate: float = 0.3,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        nesterov: bool = False,
        lr_schedule: str = "exponential",
        lr_decay: float = 0.95,
        lr_step: int = 10,
        weight_decay: float = 1e-3,
        penalty: float = 0.0,
        penalty_p: float = 2.0,
        clip_norm: float | None = None,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_eps: float = 1e-8,
        mc_samples: int = 0,
        input_shape: list[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_range("hidden_units", hidden_units, 1)
        check_range("depth", depth, 1)
        check_range("blocks", blocks, 1)
        check_range("dropout", dropout, 0, 1)
        if activation == "maxout":
            raise ValueError(
                "activation must keep the number of channels in a DenseNet, but got 'maxout'. Try 'prelu'."
            )
        self.style = LayerStyle(activation, norm, norm_groups)
        self.prepare()

    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """The stem, the dense blocks, and the output."""
        h = self.hparams
        inputs, height, width = image_shape(self, input_shape)
        channels = 2 * h["hidden_units"]
        layers: list[nn.Module] = [unnormalised_conv(inputs, channels, 3, self.style, padding=1)]
        for block in range(h["blocks"]):
            if block > 0:
                pool = min(height, width) >= 2
                layers.append(transition(channels, self.style, pool=pool))
                channels //= 2
                height, width = (height // 2, width // 2) if pool else (height, width)
            check_positions(self.style.norm, height, width)
            layers.append(DenseBlock(channels, h["hidden_units"], h["depth"], self.style, dropout=h["dropout"]))
            channels += h["depth"] * h["hidden_units"]
        layers += [norm_2d(h["norm"], channels, h["norm_groups"]), self.style.nonlinearity()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, initialise(nn.Linear(channels, num_classes), "linear"))
