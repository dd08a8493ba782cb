"""LeNet: convolutions with pooling, then a fully connected layer (LeCun et al., 1998), with normalisers (d2l)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from tuner.models.classifier import Classifier
from tuner.models.layers.activations import initialise
from tuner.models.layers.image import check_positions, image_shape
from tuner.models.layers.lookup import check_range, lookup
from tuner.models.layers.style import LayerStyle

POOLS: Mapping[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
PADDINGS: Mapping[str, Callable[[int], int]] = {"same": lambda kernel: kernel // 2, "valid": lambda _kernel: 0}


class LeNet(Classifier):
    """A classifier of images: (conv, norm, φ, pool) `depth` times, flatten, linear, norm, φ, dropout, linear.

    Stage l = 0, 1, … has channels · 2^l channels and halves the image, while both of its sides are at least 2. The
    course note's own network (documented.md §7) is `channels=6, depth=1, kernel_size=5, padding="valid", pool="avg",
    activation="sigmoid", hidden_units=10` on images of 1×10×8: 1→6 channels of 6×4, pooled to 3×2, 36→10→classes.

    Images of shape (B, channels, H, W), logits of shape (B, num_classes). At inference dropout does nothing, and batch
    normalisation takes its running statistics. Source: LeCun et al. (1998); with normalisers Zhang et al., d2l.

    Args:
        channels: channels of the first convolution, at least 1.
        depth: number of convolutional stages, at least 1.
        hidden_units: units of the fully connected layer, at least 1.
        kernel_size: side of the convolutions' kernels, odd.
        padding: `same` keeps the size of the image, `valid` cuts kernel_size - 1 off it.
        pool: `max` or `avg`, over 2×2.
        activation: φ: `relu`, `leaky_relu`, `prelu`, `sigmoid`, `tanh` or `maxout`.
        norm: `batch`, `layer`, `group`, `instance` or `none`, between an affine map and its activation. `instance`
            acts on the convolutions only: the fully connected layer has no positions.
        dropout: probability with which a unit of the fully connected layer is dropped in training, in [0, 1).
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the channels.
        maxout_pieces: k of `maxout`, at least 2.

    The other arguments are those of `Network` and `Classifier`.

    Raises:
        ValueError: an unknown name, a number outside its range, inputs that are no images, or images too small.
    """

    def __init__(
        self,
        channels: int = 32,
        depth: int = 2,
        hidden_units: int = 128,
        kernel_size: int = 3,
        padding: str = "same",
        pool: str = "avg",
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.3,
        norm_groups: int = 8,
        maxout_pieces: int = 2,
        learning_rate: float = 0.2,
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
        check_range("channels", channels, 1)
        check_range("depth", depth, 1)
        check_range("hidden_units", hidden_units, 1)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, but got {kernel_size}.")
        lookup(PADDINGS, padding, "padding")
        lookup(POOLS, pool, "pool")
        check_range("dropout", dropout, 0, 1)
        self.style = LayerStyle(activation, norm, norm_groups, maxout_pieces)
        self.prepare()

    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        """The convolutional stages, then the fully connected layer and the output."""
        h = self.hparams
        inputs, height, width = image_shape(self, input_shape)
        kernel, padding = h["kernel_size"], PADDINGS[h["padding"]](h["kernel_size"])
        layers: list[nn.Module] = []
        for stage in range(h["depth"]):
            outputs = h["channels"] * 2**stage
            height, width = (side + 2 * padding - kernel + 1 for side in (height, width))
            if min(height, width) < 1:
                raise ValueError(
                    f"LeNet's stage {stage + 1} has nothing left of an image of {input_shape[1]}×{input_shape[2]} "
                    f"with kernel_size={kernel}. Lower depth={h['depth']} or kernel_size, or set padding='same'."
                )
            check_positions(self.style.norm, height, width)
            layers += self.style.conv(inputs, outputs, kernel, padding=padding)
            if min(height, width) >= 2:
                layers.append(POOLS[h["pool"]](2))
                height, width = height // 2, width // 2
            inputs = outputs
        layers += [nn.Flatten(), *self.style.linear(inputs * height * width, h["hidden_units"])]
        if h["dropout"]:
            layers.append(nn.Dropout(h["dropout"]))
        return nn.Sequential(*layers, initialise(nn.Linear(h["hidden_units"], num_classes), "linear"))
