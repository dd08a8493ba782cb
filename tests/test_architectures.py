"""MLP, LeNet, ResNet and DenseNet: what is in them, and the facts that are the reason for them (documented.md §7)."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from networks import layers_of, of_type
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.data import Digits
from tuner.models import MLP, Classifier, DenseNet, LeNet, ResNet
from tuner.models.layers.dense_block import DenseBlock, transition
from tuner.models.layers.residual import Residual
from tuner.models.layers.style import LayerStyle

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES: dict[str, Any] = {"input_shape": [1, 8, 8], "num_classes": 10}


def shapes_through(model: Classifier, x: Tensor) -> list[tuple[str, list[int]]]:
    """The name of every layer, and the shape of what leaves it for one input."""
    shapes = []
    for layer in layers_of(model.eval()):
        x = layer(x)
        shapes.append((type(layer).__name__, list(x.shape[1:])))
    return shapes


def digit_loss(model: Classifier) -> Tensor:
    x, y = Digits(flat=False).splits().train
    return F.cross_entropy(model(x[:128]), y[:128])


# ---- MLP -----------------------------------------------------------------------------------------------------------


def test_an_mlp_is_affine_norm_activation_dropout_for_each_layer_and_a_linear_output() -> None:
    model = MLP(
        hidden_units=7, depth=2, activation="tanh", norm="layer", dropout=0.5, input_shape=[2, 3], num_classes=4
    )
    hidden = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout]
    assert [type(layer) for layer in layers_of(model)] == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert [(layer.in_features, layer.out_features) for layer in of_type(model, nn.Linear)] == [(6, 7), (7, 7), (7, 4)]


def test_an_mlp_without_hidden_layers_is_logistic_regression() -> None:
    model = MLP(depth=0, input_shape=[3], num_classes=2)
    (layer,) = of_type(model, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 2], [0, -1, 0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.0]))
    assert model(torch.tensor([[1.0, 2, 3]])).tolist() == [[7.5, -2.0]]


# ---- LeNet ---------------------------------------------------------------------------------------------------------

NOTE: dict[str, Any] = {
    "channels": 6,
    "depth": 1,
    "kernel_size": 5,
    "padding": "valid",
    "pool": "avg",
    "activation": "sigmoid",
    "hidden_units": 10,
    "dropout": 0.0,
    "input_shape": [1, 10, 8],
    "num_classes": 2,
}


def test_the_course_note_s_own_network_comes_out_layer_by_layer() -> None:
    model = LeNet(**NOTE)
    assert shapes_through(model, torch.randn(3, 1, 10, 8)) == [
        ("Conv2d", [6, 6, 4]),
        ("BatchNorm2d", [6, 6, 4]),
        ("Sigmoid", [6, 6, 4]),
        ("AvgPool2d", [6, 3, 2]),
        ("Flatten", [36]),
        ("Linear", [10]),
        ("BatchNorm1d", [10]),
        ("Sigmoid", [10]),
        ("Linear", [2]),
    ]
    (conv,), (hidden, output) = of_type(model, nn.Conv2d), of_type(model, nn.Linear)
    assert conv.weight.shape == (6, 1, 5, 5)
    assert hidden.weight.shape == (10, 36)
    assert output.weight.shape == (2, 10)


def test_the_course_note_s_own_network_trains() -> None:
    torch.manual_seed(0)
    model = LeNet(**NOTE, lr_schedule="none").train()
    x, y = torch.randn(16, 1, 10, 8), torch.arange(16) % 2
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    before = F.cross_entropy(model(x), y)
    before.backward()
    optimizer.step()
    assert F.cross_entropy(model(x), y) < before - 0.001


def test_the_channels_of_a_lenet_double_and_its_images_halve_from_stage_to_stage() -> None:
    model = LeNet(channels=3, depth=3, hidden_units=5, norm="none", dropout=0.0, **IMAGES)
    pooled = [shape for name, shape in shapes_through(model, torch.randn(2, 1, 8, 8)) if name == "AvgPool2d"]
    assert pooled == [[3, 4, 4], [6, 2, 2], [12, 1, 1]]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_a_lenet_of_any_depth_takes_small_images(depth: int, kernel_size: int) -> None:
    model = LeNet(channels=2, depth=depth, kernel_size=kernel_size, hidden_units=5, **IMAGES).eval()
    assert len(of_type(model, nn.Conv2d)) == depth
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("pool", "value"), [("max", 4.0), ("avg", 2.5)])
def test_a_lenet_pools_by_the_largest_or_the_mean_of_four(pool: str, value: float) -> None:
    model = LeNet(channels=1, depth=1, pool=pool, input_shape=[1, 2, 2], num_classes=2)
    (layer,) = (of_type(model, nn.MaxPool2d) or of_type(model, nn.AvgPool2d))[:1]
    assert layer(torch.tensor([[[[1.0, 2], [3, 4]]]])).tolist() == [[[[value]]]]


def test_too_small_an_image_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="nothing left of an image of 4×8 with kernel_size=5") as caught:
        LeNet(depth=1, kernel_size=5, padding="valid", input_shape=[1, 4, 8], num_classes=2)
    assert re.search("Lower depth=1 or kernel_size, or set padding='same'", str(caught.value))
    LeNet(depth=1, kernel_size=5, padding="valid", input_shape=[1, 5, 5], num_classes=2)
    with pytest.raises(ValueError, match="stage 3 has nothing left"):
        LeNet(depth=3, kernel_size=3, padding="valid", input_shape=[1, 8, 8], num_classes=2)


@pytest.mark.parametrize("kernel_size", [0, 4, -1])
def test_a_kernel_has_a_middle(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size must be odd and at least 1, but got {kernel_size}"):
        LeNet(kernel_size=kernel_size)


@pytest.mark.parametrize("model", [LeNet, ResNet, DenseNet])
@pytest.mark.parametrize("shape", [[64], [8, 8]])
def test_a_network_of_images_refuses_other_inputs_with_advice(model: type[LeNet], shape: list[int]) -> None:
    said = rf"{model.__name__} takes images .* shape {re.escape(str(tuple(shape)))}.*Take an MLP, or data of images"
    with pytest.raises(ValueError, match=said):
        model(input_shape=shape, num_classes=10)


# ---- ResNet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "phi"),
    [("relu", F.relu), ("tanh", torch.tanh), ("leaky_relu", lambda x: torch.maximum(x, 0.01 * x))],
)
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_a_block_whose_branch_is_zero_is_the_activation_of_its_input(name: str, phi: Any, norm: str) -> None:
    block, x = Residual(4, 4, LayerStyle(name, norm)), torch.randn(3, 4, 5, 5)
    last = of_type(block.branch, nn.Conv2d)[-1]
    nn.init.normal_(last.weight)
    assert not torch.allclose(block(x), phi(x), atol=1e-2)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(x), phi(x))


def test_without_normaliser_a_block_starts_as_its_activation_alone() -> None:
    block, x = Residual(4, 4, LayerStyle("relu", "none")), torch.randn(3, 4, 5, 5)
    assert torch.equal(block(x), F.relu(x))
    plain = Residual(4, 4, LayerStyle("relu", "none"), residual=False)
    assert not torch.equal(plain(x), torch.zeros(3, 4, 5, 5)), "a plain block has nothing else"


def test_a_block_adds_its_branch_to_its_input_before_the_last_activation() -> None:
    block, x = Residual(4, 4, LayerStyle("relu", "none")), torch.randn(3, 4, 5, 5)
    first, second = of_type(block.branch, nn.Conv2d)
    nn.init.normal_(second.weight)
    by_hand = F.relu(F.conv2d(x, first.weight, first.bias, padding=1))
    by_hand = F.relu(x + F.conv2d(by_hand, second.weight, second.bias, padding=1))
    assert torch.allclose(block(x), by_hand, atol=1e-6)


def test_a_plain_block_is_two_layers_without_its_input() -> None:
    block, x = Residual(4, 4, LayerStyle("tanh", "none"), residual=False), torch.randn(3, 4, 5, 5)
    first, second = of_type(block, nn.Conv2d)
    by_hand = torch.tanh(F.conv2d(x, first.weight, first.bias, padding=1))
    by_hand = torch.tanh(F.conv2d(by_hand, second.weight, second.bias, padding=1))
    assert torch.allclose(block(x), by_hand, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "channels", "stride", "convolved"),
    [(4, 4, 1, False), (4, 6, 1, True), (4, 4, 2, True), (4, 8, 2, True)],
)
def test_the_skip_is_a_1x1_convolution_exactly_where_shapes_differ(
    inputs: int, channels: int, stride: int, convolved: bool
) -> None:
    block = Residual(inputs, channels, LayerStyle("relu", "batch"), stride=stride)
    x = torch.randn(2, inputs, 5, 5)
    side = 5 if stride == 1 else 3
    assert block(x).shape == (2, channels, side, side)
    assert isinstance(block.skip, nn.Module)
    kernels = [conv.weight.shape for conv in of_type(block.skip, nn.Conv2d)]
    assert kernels == ([(channels, inputs, 1, 1)] if convolved else [])
    if not convolved:
        assert torch.equal(block.skip(x), x)


def test_only_the_first_block_of_a_later_stage_changes_shapes() -> None:
    model = ResNet(hidden_units=4, depth=3, stages=3, **IMAGES)
    blocks = of_type(model, Residual)
    assert [len(of_type(block.skip, nn.Conv2d)) for block in blocks] == [0, 0, 0, 1, 0, 0, 1, 0, 0]
    assert [shape for name, shape in shapes_through(model, torch.randn(2, 1, 8, 8)) if name == "Residual"] == (
        [[4, 8, 8]] * 3 + [[8, 4, 4]] * 3 + [[16, 2, 2]] * 3
    )


@pytest.mark.parametrize(("depth", "stages"), [(1, 1), (14, 1), (2, 3)])
def test_a_plain_network_has_two_layers_a_block_and_two_more(depth: int, stages: int) -> None:
    model = ResNet(hidden_units=2, depth=depth, stages=stages, residual=False, **IMAGES)
    assert len(of_type(model, nn.Conv2d)) + len(of_type(model, nn.Linear)) == 2 * depth * stages + 2


def first_over_last(residual: bool) -> float:
    """The first convolution's gradient norm over the last's, in thirty layers with torch's own initialisation."""
    torch.manual_seed(0)
    model = ResNet(
        hidden_units=16, depth=14, stages=1, residual=residual, activation="relu", norm="none", dropout=0.0, **IMAGES
    )
    convs = of_type(model, nn.Conv2d)
    assert len(convs) == 29  # and the output
    for conv in convs:
        conv.reset_parameters()  # He's initialisation alone would save the plain network at the start
    digit_loss(model).backward()
    ratio: float = convs[0].weight.grad.norm().item() / convs[-1].weight.grad.norm().item()
    return ratio


def test_in_thirty_residual_layers_the_gradient_reaches_the_first() -> None:
    assert 0.01 < first_over_last(residual=True) < 100


def test_in_thirty_plain_layers_it_does_not() -> None:
    assert first_over_last(residual=False) < 0.01


def test_a_residual_network_without_normaliser_starts_near_ignorance() -> None:
    torch.manual_seed(0)  # every block adds to the signal, so that without care it grows with depth
    model = ResNet(depth=4, norm="none", dropout=0.0, **IMAGES)
    assert digit_loss(model).item() < 3 * math.log(10)


# ---- DenseNet ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden_units", "depth", "blocks", "channels"),
    [
        # 2·4 → +3·4 = 20
        (4, 3, 1, 20),
        # 2·4 → 20, halved 10 → 22
        (4, 3, 2, 22),
        # 2·4 → 20, halved 10 → 22, halved 11 → 23
        (4, 3, 3, 23),
        # 2·5 → 15, halved and rounded down 7 → 12, halved 6 → 11
        (5, 1, 3, 11),
        # 2·1 → 3, halved and rounded down 1 → 2
        (1, 1, 2, 2),
    ],
)
def test_the_channels_of_a_densenet_grow_by_layers_and_halve_at_transitions(
    hidden_units: int, depth: int, blocks: int, channels: int
) -> None:
    model = DenseNet(hidden_units=hidden_units, depth=depth, blocks=blocks, **IMAGES)
    (output,) = of_type(model, nn.Linear)
    assert output.in_features == channels
    assert len(of_type(model, nn.Conv2d)) == 1 + blocks * depth + (blocks - 1)
    assert model.eval()(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_a_transition_halves_channels_and_sides() -> None:
    assert transition(10, LayerStyle("relu", "batch"))(torch.randn(2, 10, 7, 4)).shape == (2, 5, 3, 2)
    assert transition(10, LayerStyle("relu", "batch"), pool=False)(torch.randn(2, 10, 1, 4)).shape == (2, 5, 1, 4)


def test_a_densenet_of_many_blocks_takes_small_images() -> None:
    model = DenseNet(hidden_units=4, depth=1, blocks=6, **IMAGES).eval()
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_every_layer_of_a_dense_block_is_given_all_earlier_feature_maps_unchanged() -> None:
    block, x = DenseBlock(3, 2, 4, LayerStyle("relu", "batch")), torch.randn(2, 3, 5, 5)
    given: list[Tensor] = []
    made: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        given.append(inputs[0])
        made.append(output)

    for layer in block.layers:
        layer.register_forward_hook(look)
    out = block(x)
    assert [g.shape[1] for g in given] == [3, 5, 7, 9]
    for l, inputs in enumerate(given):  # noqa: E741 - the paper's index
        assert torch.equal(inputs, torch.cat([x, *made[:l]], dim=1))
    assert torch.equal(out, torch.cat([x, *made], dim=1))


def test_every_feature_map_of_a_dense_block_depends_directly_on_every_earlier_one() -> None:
    torch.manual_seed(0)
    block = DenseBlock(3, 2, 4, LayerStyle("tanh", "none"))
    starts = [0, 3, 5, 7, 9]  # the first channel of x_0, x_1, …
    for later in range(1, 5):
        inputs = torch.randn(1, starts[later], 5, 5, requires_grad=True)
        layer = block.layers[later - 1]
        (gradient,) = torch.autograd.grad(layer(inputs).sum(), inputs)
        for earlier in range(later):
            assert gradient[:, starts[earlier] : starts[earlier + 1]].abs().min() > 0


def test_a_densenet_refuses_maxout_with_advice() -> None:
    with pytest.raises(ValueError, match=r"activation must keep the number of channels .* 'maxout'\. Try 'prelu'\."):
        DenseNet(activation="maxout")


# ---- biases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [LeNet, ResNet, DenseNet])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_no_bias_stands_where_the_normaliser_after_it_takes_it_away(model: type[LeNet], norm: str) -> None:
    torch.manual_seed(0)
    made = model(norm=norm, dropout=0.0, **IMAGES)
    digit_loss(made).backward()
    norms = {name: p.grad.norm().item() for name, p in made.named_parameters() if p.grad is not None}
    without_effect = [name for name, gradient in norms.items() if gradient < 1e-6]
    assert without_effect == []


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (LeNet, {"depth": 4}),  # the fourth convolution sees 1×1
        (ResNet, {"stages": 4}),
        (DenseNet, {"blocks": 4}),
    ],
)
def test_instance_normalisation_of_a_single_position_trains_or_is_refused_when_the_model_is_built(
    model: Any, arguments: dict[str, int]
) -> None:
    try:
        made = model(norm="instance", **IMAGES, **arguments)
    except ValueError as error:
        assert "norm" in str(error)  # noqa: PT017 - both ways are right
        return
    assert digit_loss(made).isfinite()
