"""ResNet: blocks that learn what to add to their input (He et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tuner.models.classifier import Classifier
from tuner.models.layers.activations import initialise
from tuner.models.layers.image import check_positions, image_shape
from tuner.models.layers.lookup import check_range
from tuner.models.layers.residual import Residual
from tuner.models.layers.style import LayerStyle


class ResNet(Classifier):
    """A classifier of images: conv 3×3, norm, φ, then stages of residual blocks, mean over positions, linear.

    A block is φ(r(x) + x) with r = conv 3×3, norm, φ, conv 3×3, norm. Stage l = 0, 1, … has hidden_units · 2^l
    channels, and every stage but the first halves the image; where shapes differ the skip is a 1×1 convolution. The
    network has 2 · depth · stages + 2 layers with weights on its longest way.

    Images of shape (B, channels, H, W), logits of shape (B, num_classes). At inference dropout does nothing, and batch
    normalisation takes its running statistics. Source: He et al. (2016), documented.md §7.

    Args:
        hidden_units: channels of the first stage, at least 1.
        depth: residual blocks a stage, at least 1.
        stages: number of stages, at least 1.
        residual: add the skips; without them it is the plain network to compare with.
        activation: φ: `relu`, `leaky_relu`, `prelu`, `sigmoid`, `tanh` or `maxout`.
        norm: `batch`, `layer`, `group`, `instance` or `none`, between a convolution and the activation.
        dropout: probability with which a channel's mean is dropped before the output in training, in [0, 1).
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the channels.
        maxout_pieces: k of `maxout`, at least 2.

    The other arguments are those of `Network` and `Classifier`.

    Raises:
        ValueError: an unknown name, a number outside its range, or inputs that are no images.
    """

    def __init__(
        self,
        hidden_units: int = 32,
        depth: int = 1,
        stages: int = 3,
        residual: bool = True,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.5,
        norm_groups: int = 8,
        maxout_pieces: int = 2,
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
        check_range("stages", stages, 1)
        check_range("dropout", dropout, 0, 1)
        self.style = LayerStyle(activation, norm, norm_groups, maxout_pieces)
        self.prepare()

    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """The stem, the stages, and the output."""
        h = self.hparams
        inputs, height, width = image_shape(self, input_shape)
        channels = h["hidden_units"]
        layers = self.style.conv(inputs, channels, 3, padding=1)
        inputs = channels
        for stage in range(h["stages"]):
            channels = h["hidden_units"] * 2**stage
            if stage > 0:
                height, width = (height + 1) // 2, (width + 1) // 2
            check_positions(self.style.norm, height, width)
            for block in range(h["depth"]):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Residual(inputs, channels, self.style, stride=stride, residual=h["residual"]))
                inputs = channels
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if h["dropout"]:
            layers.append(nn.Dropout(h["dropout"]))
        return nn.Sequential(*layers, initialise(nn.Linear(channels, num_classes), "linear"))
