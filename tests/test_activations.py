"""Activations, the initialisation that goes with each, and gradients that vanish behind sigmoids (documented.md §4)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from networks import Given, fitted, layers_of, of_type, vectors
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.data import Digits
from tuner.models import MLP, ResNet
from tuner.models.layers.activations import activation, initialise
from tuner.models.layers.maxout import Maxout
from tuner.models.regularisation import lp_penalty

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- what each does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("relu", [0.0, 0.0, 2.0]),
        ("leaky_relu", [-0.01, 0.0, 2.0]),
        ("prelu", [-0.25, 0.0, 2.0]),
        ("sigmoid", [0.2689414, 0.5, 0.8807971]),
        ("tanh", [-0.7615942, 0.0, 0.9640276]),
    ],
)
def test_an_activation_does_what_its_name_says(name: str, outputs: list[float]) -> None:
    assert activation(name)(torch.tensor([-1.0, 0.0, 2.0])).tolist() == pytest.approx(outputs)


def test_the_steepest_slope_of_the_sigmoid_is_a_quarter_at_zero() -> None:
    x = torch.linspace(-8, 8, 1601, requires_grad=True)
    activation("sigmoid")(x).sum().backward()
    assert x.grad is not None
    assert x.grad.max().item() == pytest.approx(0.25)
    assert x[x.grad.argmax()].item() == pytest.approx(0.0, abs=1e-4)


def test_the_slope_of_leaky_relu_is_fixed_and_that_of_prelu_is_learnt() -> None:
    assert not list(activation("leaky_relu").parameters())
    prelu = activation("prelu")
    (slope,) = prelu.parameters()
    prelu(torch.tensor([-3.0, 2.0, -1.0])).sum().backward()
    assert slope.grad is not None
    assert slope.grad.item() == pytest.approx(-4.0)  # Σ min(0, x)


def test_a_prelu_slope_is_trained_but_neither_decayed_nor_penalised() -> None:
    def slope_after(epochs: int, **arguments: Any) -> float:
        torch.manual_seed(0)
        model = MLP(hidden_units=4, depth=1, activation="prelu", norm="none", dropout=0.0, **arguments)
        fitted(model, Given([vectors(8)], input_shape=[12], num_classes=10), max_epochs=epochs)
        (prelu,) = of_type(model, nn.PReLU)
        slope: float = prelu.weight.item()
        return slope

    assert slope_after(3) != pytest.approx(0.25, abs=1e-3)
    plain = slope_after(1, weight_decay=0.0, learning_rate=0.01)
    assert slope_after(1, weight_decay=50.0, learning_rate=0.01) == plain
    assert slope_after(1, weight_decay=0.0, penalty=50.0, learning_rate=0.01) == pytest.approx(plain, rel=1e-6)


def test_the_penalty_of_a_network_of_prelu_slopes_alone_is_nothing() -> None:
    assert lp_penalty(nn.Sequential(nn.PReLU(), nn.PReLU(5)).parameters(), 1.0).item() == 0.0


# ---- maxout --------------------------------------------------------------------------------------------------------


def test_maxout_keeps_the_largest_of_the_pieces_that_lie_side_by_side() -> None:
    x = torch.tensor([[1.0, 5, 2, 8, 9, 7], [-1, -5, -2, 0, 0, 1]])
    assert Maxout(3)(x).tolist() == [[5, 9], [-1, 1]]
    assert Maxout(2)(x).tolist() == [[5, 8, 9], [-1, 0, 1]]
    assert torch.equal(Maxout(1)(x), x)


def test_maxout_with_the_pieces_w_b_and_zero_is_relu_of_the_linear_layer() -> None:
    torch.manual_seed(0)
    linear, pieces, x = nn.Linear(5, 3), nn.Linear(5, 6), torch.randn(50, 5)
    with torch.no_grad():
        pieces.weight.zero_()
        pieces.bias.zero_()
        pieces.weight[::2] = linear.weight
        pieces.bias[::2] = linear.bias
    by_relu = F.relu(linear(x))
    assert 0.2 < (by_relu == 0).float().mean() < 0.8
    assert torch.allclose(Maxout(2)(pieces(x)), by_relu, atol=1e-6)


def test_maxout_of_images_keeps_the_largest_of_neighbouring_channels_at_each_position() -> None:
    x = torch.randn(2, 6, 4, 5)
    out = Maxout(3)(x)
    assert out.shape == (2, 2, 4, 5)
    assert out[1, 1, 3, 2].item() == max(x[1, c, 3, 2].item() for c in (3, 4, 5))
    assert out[0, 0, 0, 4].item() == max(x[0, c, 0, 4].item() for c in (0, 1, 2))


def test_maxout_hands_its_gradient_to_the_largest_piece() -> None:
    x = torch.tensor([[1.0, 5, 2, 8, 9, 7]], requires_grad=True)
    Maxout(3)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 0, 0, 1, 0]]


def test_maxout_needs_a_piece() -> None:
    with pytest.raises(ValueError, match="maxout_pieces must be at least 1, but got 0"):
        Maxout(0)
    with pytest.raises(ValueError, match="maxout_pieces must be at least 2, but got 1"):
        MLP(activation="maxout", maxout_pieces=1)


@pytest.mark.parametrize(("pieces", "moment"), [(1, 1.0), (2, 1.0), (3, 1 + math.sqrt(3) / (2 * math.pi))])
def test_the_second_moment_of_the_largest_normal_has_its_known_value(pieces: int, moment: float) -> None:
    assert Maxout.second_moment(pieces) == pytest.approx(moment, abs=1e-6)


def test_the_second_moment_of_the_largest_of_five_normals_is_what_sampling_says() -> None:
    torch.manual_seed(0)
    squares = torch.randn(400_000, 5).amax(dim=1).square()
    error = squares.std().item() / math.sqrt(len(squares))
    assert abs(Maxout.second_moment(5) - squares.mean().item()) < 4 * error


def test_the_pieces_of_a_maxout_are_units_of_their_own() -> None:
    model = MLP(
        hidden_units=5, depth=2, activation="maxout", maxout_pieces=3, norm="none", input_shape=[4], num_classes=2
    )
    shapes = [(layer.in_features, layer.out_features) for layer in of_type(model, nn.Linear)]
    assert shapes == [(4, 15), (5, 15), (5, 2)]
    net = ResNet(
        hidden_units=4, stages=1, activation="maxout", maxout_pieces=3, input_shape=[1, 8, 8], num_classes=2
    ).eval()
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 2)


# ---- initialisation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "prelu"])
def test_layers_before_rectifiers_start_with_a_deviation_of_root_two_over_fan_in(name: str) -> None:
    torch.manual_seed(0)
    layer = initialise(nn.Linear(400, 300), name)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert layer.bias.abs().max().item() == 0.0


def test_the_fan_in_of_a_convolution_counts_its_whole_window() -> None:
    torch.manual_seed(0)
    conv = initialise(nn.Conv2d(40, 300, 3), "relu")
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 360), rel=0.02)
    conv = initialise(nn.Conv2d(40, 300, 3), "maxout", 3)
    moment = 1 + math.sqrt(3) / (2 * math.pi)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(1 / (moment * 360)), rel=0.02)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "linear"])
def test_other_layers_start_evenly_within_glorot_s_bound(name: str) -> None:
    torch.manual_seed(0)
    layer = initialise(nn.Linear(400, 300), name)
    bound = math.sqrt(6 / 700)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.001)
    assert layer.weight.abs().max().item() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert layer.bias.abs().max().item() == 0.0


def test_an_mlp_initialises_hidden_layers_for_their_activation_and_the_output_as_linear() -> None:
    torch.manual_seed(0)
    model = MLP(hidden_units=300, depth=2, activation="relu", input_shape=[400], num_classes=200)
    first, second, output = of_type(model, nn.Linear)
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert second.weight.std().item() == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert output.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 500), rel=0.001)


@pytest.mark.parametrize(("name", "pieces"), [("relu", 2), ("maxout", 2), ("maxout", 3), ("maxout", 5)])
def test_the_signal_of_a_deep_network_keeps_its_size_at_the_start(name: str, pieces: int) -> None:
    torch.manual_seed(0)
    model = MLP(
        hidden_units=512,
        depth=10,
        activation=name,
        maxout_pieces=pieces,
        norm="none",
        dropout=0.0,
        input_shape=[512],
        num_classes=2,
    )
    *hidden, _ = layers_of(model)
    signal = nn.Sequential(*hidden)(torch.randn(64, 512))
    assert 0.3 < signal.pow(2).mean().item() < 3.0


# ---- vanishing gradients -------------------------------------------------------------------------------------------


def first_over_last(name: str, depth: int) -> float:
    """The gradient norm of the first layer's weights over that of the last hidden layer's, on the digits."""
    torch.manual_seed(0)
    model = MLP(activation=name, depth=depth, norm="none", dropout=0.0, input_shape=[64], num_classes=10)
    x, y = Digits().splits().train
    F.cross_entropy(model(x[:256]), y[:256]).backward()
    first, *_, last, _ = [layer.weight.grad.norm().item() for layer in of_type(model, nn.Linear)]
    ratio: float = first / last
    return ratio


def test_in_a_deep_sigmoid_network_the_gradient_vanishes_towards_the_first_layer() -> None:
    # each layer on the way scales it by at most a quarter times its weights: here by about 0.2, seven times
    assert first_over_last("sigmoid", 8) < 1e-3


def test_in_a_deep_network_of_rectifiers_it_does_not() -> None:
    assert 0.05 < first_over_last("relu", 8) < 20


def test_the_gradient_vanishes_with_depth() -> None:
    ratios: list[float] = [first_over_last("sigmoid", depth) for depth in (2, 4, 6)]
    assert ratios[0] > 10 * ratios[1] > 100 * ratios[2]


def test_behind_sigmoids_with_weights_of_one_the_gradient_shrinks_by_a_quarter_a_layer_at_most() -> None:
    x: Tensor = torch.zeros(1, requires_grad=True)
    out = x
    for _ in range(6):
        out = activation("sigmoid")(out - 0.5 if out is not x else out)  # every sigmoid at 0, its steepest
    out.backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(0.25**6)
