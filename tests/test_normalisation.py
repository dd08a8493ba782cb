"""Normalisers: over which values each takes its mean and variance, and what it does at inference (documented.md §5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import layers_of, of_type
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models import MLP, LeNet, MLPRegressor
from tuner.models.layers.normalisation import (
    NORMS_1D,
    NORMS_2D,
    UNBIASED,
    groups_of,
    norm_1d,
    norm_2d,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- the worked example --------------------------------------------------------------------------------------------

BATCH = torch.tensor([[1.0, 2, 3], [2, 2, 1], [2, 1, 3], [3, 1, 1]])


def normalised_by(norm: str, x: Tensor) -> Tensor:
    """What comes out of the normaliser of an MLP with one hidden unit, w = (1, 1, 1) and b = 0."""
    model = MLP(hidden_units=1, depth=1, norm=norm, input_shape=[3], num_classes=2)
    _, affine, normaliser, *_ = layers_of(model)
    assert isinstance(affine, nn.Linear)
    nn.init.ones_(affine.weight)
    if affine.bias is not None:
        nn.init.zeros_(affine.bias)
    out: Tensor = normaliser(affine(x))
    return out.detach().flatten()


def test_the_worked_example_of_batch_normalisation_comes_out() -> None:
    # z = 6, 5, 6, 5; mean 5.5; variance 0.25
    assert normalised_by("none", BATCH).tolist() == [6.0, 5.0, 6.0, 5.0]
    assert normalised_by("batch", BATCH).tolist() == pytest.approx([1.0, -1.0, 1.0, -1.0], abs=1e-4)


def test_batch_normalisation_with_the_batch_s_own_statistics_is_the_identity() -> None:
    # documented.md §5: γ = √(σ² + ε), β = μ
    layer: Any = norm_1d("batch", 1)
    nn.init.constant_(layer.weight, math.sqrt(0.25 + 1e-5))
    nn.init.constant_(layer.bias, 5.5)
    z = torch.tensor([[6.0], [5.0], [6.0], [5.0]])
    assert layer(z).flatten().tolist() == pytest.approx(z.flatten().tolist(), abs=1e-5)


# ---- over which values ---------------------------------------------------------------------------------------------


def standardised(x: Tensor, *over: int) -> Tensor:
    """Mean 0 and variance 1 over these dimensions."""
    mean = x.mean(dim=over, keepdim=True)
    variance = (x - mean).square().mean(dim=over, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def in_groups(x: Tensor, groups: int, *over: int) -> Tensor:
    """The channels, dimension 1, as (groups, channels a group); then standardised over dimensions of that shape."""
    return standardised(x.unflatten(1, (groups, -1)), *over).flatten(1, 2)


def scattered(*shape: int) -> Tensor:
    """Values whose mean and scale differ along every dimension, so that no two normalisers agree."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    for dimension, size in enumerate(shape):
        along = [1] * len(shape)
        along[dimension] = size
        x = x * (0.5 + torch.rand(along)) + 2 * torch.randn(along)
    return x


VECTORS: dict[str, Callable[[Tensor], Tensor]] = {  # (B, C)
    "batch": lambda x: standardised(x, 0),
    "layer": lambda x: standardised(x, 1),
    "group": lambda x: in_groups(x, 3, 2),
    "none": lambda x: x,
}
IMAGES: dict[str, Callable[[Tensor], Tensor]] = {  # (B, C, H, W)
    "batch": lambda x: standardised(x, 0, 2, 3),
    "layer": lambda x: standardised(x, 1, 2, 3),
    "group": lambda x: in_groups(x, 3, 2, 3, 4),
    "instance": lambda x: standardised(x, 2, 3),
    "none": lambda x: x,
}


def test_every_normaliser_has_its_formula_here() -> None:
    assert VECTORS.keys() == NORMS_1D.keys()
    assert IMAGES.keys() == NORMS_2D.keys()


@pytest.mark.parametrize("name", VECTORS)
def test_a_normaliser_of_vectors_takes_its_statistics_over_the_documented_values(name: str) -> None:
    x = scattered(7, 12)
    assert torch.allclose(norm_1d(name, 12, 3)(x), VECTORS[name](x), atol=1e-5)


@pytest.mark.parametrize("name", IMAGES)
def test_a_normaliser_of_images_takes_its_statistics_over_the_documented_values(name: str) -> None:
    x = scattered(4, 12, 5, 3)
    assert torch.allclose(norm_2d(name, 12, 3)(x), IMAGES[name](x), atol=1e-5)


def test_group_normalisation_with_one_group_is_layer_normalisation_over_channels_and_positions() -> None:
    x = scattered(4, 6, 5, 3)
    by_torch = F.layer_norm(x, (6, 5, 3))
    assert torch.allclose(norm_2d("group", 6, 1)(x), by_torch, atol=1e-5)
    assert torch.allclose(norm_2d("layer", 6)(x), by_torch, atol=1e-5)


def test_group_normalisation_with_a_group_for_each_channel_is_instance_normalisation() -> None:
    x = scattered(4, 6, 5, 3)
    by_torch = F.instance_norm(x)
    assert torch.allclose(norm_2d("group", 6, 6)(x), by_torch, atol=1e-5)
    assert torch.allclose(norm_2d("instance", 6)(x), by_torch, atol=1e-5)


@pytest.mark.parametrize("name", ["batch", "layer", "group", "instance"])
def test_gamma_and_beta_are_learnt_for_each_channel_from_one_and_zero(name: str) -> None:
    norm, x = norm_2d(name, 6, 3), scattered(4, 6, 5, 3)
    gamma, beta = norm.weight, norm.bias
    assert isinstance(gamma, nn.Parameter)
    assert isinstance(beta, nn.Parameter)
    assert (gamma.tolist(), beta.tolist()) == ([1.0] * 6, [0.0] * 6)
    before = norm(x).detach()
    with torch.no_grad():
        gamma[2] = 3.0
        beta[2] = -1.0
    after = norm(x).detach()
    assert torch.allclose(after[:, 2], 3 * before[:, 2] - 1, atol=1e-5)
    untouched = [0, 1, 3, 4, 5]
    assert torch.equal(after[:, untouched], before[:, untouched])


@pytest.mark.parametrize(
    ("channels", "asked", "smallest", "given"),
    [
        (16, 8, 1, 8),
        (12, 8, 1, 6),  # 8 does not divide 12, 6 does
        (7, 8, 1, 7),
        (7, 6, 1, 1),  # a prime
        (4, 8, 1, 4),  # no more groups than channels
        (16, 1, 1, 1),
        (1, 8, 1, 1),
        (16, 16, 2, 8),  # two channels a group
        (7, 8, 2, 1),
        (2, 8, 2, 1),
        (1, 8, 2, 1),  # nothing fits: one group
        (9, 8, 2, 3),
    ],
)
def test_groups_are_equal_and_as_many_as_fit(channels: int, asked: int, smallest: int, given: int) -> None:
    assert groups_of(channels, asked, smallest) == given


def test_a_group_of_a_vector_never_has_one_value_which_would_always_become_zero() -> None:
    x = scattered(5, 8)
    assert (norm_1d("group", 8, 8)(x).abs() > 0.5).all()  # pairs become ±1


# ---- inference -----------------------------------------------------------------------------------------------------


def test_at_inference_batch_normalisation_uses_running_statistics() -> None:
    layer = norm_1d("batch", 1)
    layer(torch.tensor([[6.0], [5.0], [6.0], [5.0]]))
    # torch's momentum 0.1: mean 0.1 · 5.5, variance 0.9 + 0.1 · 0.25 · 4/3
    expected = (6.0 - 0.55) / math.sqrt(0.9 + 0.1 / 3 + 1e-5)
    assert layer.eval()(torch.tensor([[6.0]])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("build", [norm_1d, norm_2d])
def test_at_inference_batch_normalisation_does_not_look_at_the_other_samples(build: Callable[..., nn.Module]) -> None:
    layer, x = build("batch", 6), scattered(*{norm_1d: (4, 6), norm_2d: (4, 6, 5, 3)}[build])
    assert not torch.allclose(layer(x)[:1], layer(torch.cat([x[:1], 9 + x[1:]]))[:1], atol=0.1)  # in training it does
    layer.eval()
    assert torch.equal(layer(x)[:1], layer(torch.cat([x[:1], 9 + x[1:]]))[:1])


@pytest.mark.parametrize("name", ["layer", "group"])
def test_layer_and_group_normalise_a_vector_by_itself_alone_also_at_inference(name: str) -> None:
    layer, x = norm_1d(name, 12, 3), scattered(4, 12)
    in_training = layer(x)
    layer.eval()
    assert torch.equal(layer(x), in_training)
    assert torch.allclose(layer(x[:1]), in_training[:1], atol=1e-6)


@pytest.mark.parametrize("name", ["layer", "group", "instance"])
def test_an_image_is_normalised_by_itself_alone_also_at_inference(name: str) -> None:
    layer, x = norm_2d(name, 12, 3), scattered(4, 12, 5, 3)
    in_training = layer(x)
    layer.eval()
    assert torch.equal(layer(x), in_training)
    assert torch.allclose(layer(x[:1]), in_training[:1], atol=1e-6)


def test_layer_normalisation_of_a_vector_comes_out_by_hand() -> None:
    out = norm_1d("layer", 3)(torch.tensor([[1.0, 2.0, 3.0]]))
    assert out.flatten().tolist() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5], abs=1e-4)


# ---- in a network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MLP, MLPRegressor])
def test_an_mlp_refuses_instance_normalisation_with_the_names_it_has(model: type[MLP]) -> None:
    with pytest.raises(ValueError, match=r"norm must be one of batch, layer, group, none, but got 'instance'\."):
        model(norm="instance")


@pytest.mark.parametrize("norm", NORMS_2D)
def test_an_affine_map_has_a_bias_unless_the_normaliser_after_it_takes_it_away(norm: str) -> None:
    model = LeNet(channels=4, depth=1, hidden_units=16, norm=norm, input_shape=[1, 8, 8], num_classes=3)
    (conv,), (hidden, output) = of_type(model, nn.Conv2d), of_type(model, nn.Linear)
    assert (conv.bias is None) == (norm in {"batch", "instance"})
    assert (hidden.bias is None) == (norm == "batch")  # `instance` does nothing to vectors
    assert output.bias is not None


@pytest.mark.parametrize("name", NORMS_2D)
def test_a_bias_has_no_effect_exactly_before_the_normalisers_said_to_be_so(name: str) -> None:
    x, bias = scattered(4, 12, 5, 3), torch.randn(12, 1, 1)
    layer = norm_2d(name, 12, 3)
    assert torch.allclose(layer(x + bias), layer(x), atol=1e-4) == (name in UNBIASED)
