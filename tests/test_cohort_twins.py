"""What stands for torch's own layers and losses in a cohort does what they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.cohort import batch_innermost, batch_norm
from tuner.cohort.cross_entropy import mean_cross_entropy, takes
from tuner.cohort.recurrence import elman
from tuner.cohort.twins import DropoutTwin

LOGITS = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([[0, 1, 2, 3, 4, 0, 1], [4, 4, -100, 0, 1, -100, 2], [1, 1, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("k", range(3))
def test_the_mean_cross_entropy_and_its_gradient_are_torch_s(k: int) -> None:
    together, loss = torch.func.vmap(torch.func.grad_and_value(mean_cross_entropy))(LOGITS, TARGETS)
    alone = LOGITS[k].clone().requires_grad_()
    expected = F.cross_entropy(alone, TARGETS[k])
    expected.backward()
    torch.testing.assert_close(loss[k], expected.detach())
    torch.testing.assert_close(together[k], alone.grad)


def test_samples_that_are_all_ignored_have_no_mean() -> None:
    ignored = torch.full((7,), -100)
    assert mean_cross_entropy(LOGITS[0], ignored).isnan() == F.cross_entropy(LOGITS[0], ignored).isnan()


def test_only_what_is_a_mean_over_classes_by_their_numbers_is_taken() -> None:
    logits, target = LOGITS[0], TARGETS[0]
    assert takes(logits, target, {})
    assert takes(logits, target, {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0, "weight": None})
    refused: list[tuple[Tensor, Tensor, dict[str, Any]]] = [
        (logits, target, {"reduction": "sum"}),
        (logits, target, {"label_smoothing": 0.1}),
        (logits, target, {"weight": torch.ones(5)}),
        (logits, target, {"ignore_index": 1}),
        (logits, logits.softmax(1), {}),
        (logits[0], target[0], {}),
        (logits.unsqueeze(-1), target.unsqueeze(-1), {}),
    ]
    assert not any(takes(*one) for one in refused)


LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
ORDERS = {"plain": (0, 1, 2, 3, 4, 5), "slices inside": (1, 0, 2, 3, 4, 5), "batch last": (0, 2, 3, 4, 5, 1)}


def in_memory(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same numbers, with their dimensions in another order in memory."""
    known = [dim for dim in order if dim < x.dim()]
    return x.permute(known).contiguous().permute([known.index(dim) for dim in range(x.dim())])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dims", LAYERS)
def test_batch_normalisation_of_all_slices_is_torch_s_of_each(dims: int, order: str, training: bool) -> None:
    torch.manual_seed(0)
    k, channels = 3, 4
    shape = (k, 6, channels, 5, 2, 3)[: dims + 1]
    layers = [LAYERS[dims](channels, momentum=0.2, eps=1e-3).double().train(training) for _ in range(k)]
    for layer in layers:
        for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
            tensor.uniform_(0.5, 2.0)
    x, weigh = torch.randn(shape).double(), torch.randn(shape).double()
    given = {name: torch.stack([getattr(layer, name).detach() for layer in layers]) for name in NAMES}

    def scored(learnt: tuple[Tensor, ...], mean: Tensor, var: Tensor, weigh: Tensor) -> tuple[Tensor, Tensor]:
        y = batch_norm.batch_norm(learnt[0], mean, var, *learnt[1:], training, 0.2, 1e-3)
        return (y * weigh).sum(), y.detach()

    graded = torch.func.vmap(torch.func.grad(scored, has_aux=True))
    learnt = (in_memory(x, ORDERS[order]), given["weight"], given["bias"])
    gradients, together = graded(learnt, given["running_mean"], given["running_var"], weigh)
    for number, layer in enumerate(layers):
        own = x[number].clone().requires_grad_()
        y = layer(own)
        (y * weigh[number]).sum().backward()
        torch.testing.assert_close(together[number], y.detach(), rtol=1e-11, atol=1e-11)
        for ours, theirs in zip(gradients, (own.grad, layer.weight.grad, layer.bias.grad), strict=True):
            torch.testing.assert_close(ours[number], theirs, rtol=1e-11, atol=1e-11)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(given[name][number], getattr(layer, name), rtol=1e-11, atol=1e-11)


NAMES = ("weight", "bias", "running_mean", "running_var")


def test_one_batch_for_all_slices_is_normalised_with_each_one_s_numbers() -> None:
    x, weights = torch.randn(6, 4), torch.rand(3, 4)
    zeros, ones = torch.zeros(3, 4), torch.ones(3, 4)
    y = torch.func.vmap(batch_norm.batch_norm, in_dims=(None, 0, 0, 0, 0))(x, zeros, ones, weights, zeros)
    torch.testing.assert_close(y, x * weights.unsqueeze(1) / (1 + 1e-5) ** 0.5)


def test_only_batch_normalisation_with_all_its_numbers_is_taken() -> None:
    x, ones = torch.randn(6, 4), torch.ones(4)
    assert batch_norm.takes(x, ones, ones, ones, ones, True, 0.1, 1e-5)
    refused: list[tuple[Any, ...]] = [
        (x, None, None, ones, ones, True, 0.1, 1e-5),
        (x, ones, ones, None, None, True, 0.1, 1e-5),
        (x, ones, ones, ones, ones, True, torch.tensor(0.1), 1e-5),
        (x.half(), ones, ones, ones, ones, True, 0.1, 1e-5),
        (x[:1], ones, ones, ones, ones, True, 0.1, 1e-5),
    ]
    assert not any(batch_norm.takes(*one) for one in refused)


def test_second_derivatives_of_batch_normalisation_are_refused_and_not_guessed() -> None:
    def scored(x: Tensor) -> Tensor:
        zeros, ones = torch.zeros(4), torch.ones(4)
        return batch_norm.batch_norm(x, zeros, ones, ones, zeros, True).pow(2).sum()

    with pytest.raises(NotImplementedError):
        torch.func.grad(lambda x: torch.func.grad(scored)(x).sum())(torch.randn(6, 4))


def test_second_derivatives_of_cross_entropy_are_refused_and_not_guessed() -> None:
    def scored(logits: Tensor) -> Tensor:
        return mean_cross_entropy(logits, torch.arange(4))

    with pytest.raises(NotImplementedError):
        torch.func.grad(lambda logits: torch.func.grad(scored)(logits).sum())(torch.randn(4, 5))


def of_each_slice(function: Any, *given: Tensor) -> tuple[Any, Tensor]:
    """The gradients of all arguments, and the result, of all slices at once."""

    def scored(arguments: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        y = function(*arguments)
        return (y * torch.arange(y.numel()).view(y.shape)).sum(), y.detach()

    return torch.func.vmap(torch.func.grad(scored, has_aux=True))(given)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("sides", "padding"), [((3, 3), (1, 1)), ((3, 3), 0), ((1, 1), (0, 0)), ((5, 5), 2), ((3, 2), (2, 0))]
)
def test_convolutions_with_the_batch_innermost_are_torch_s(sides: tuple[int, int], padding: Any, biased: bool) -> None:
    torch.manual_seed(0)
    given = [torch.randn(3, 4, 2, 6, 5).double(), torch.randn(3, 3, 2, *sides).double()]
    given += [torch.randn(3, 3).double()] if biased else []

    def ours(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        assert batch_innermost.takes_convolution(x, weight, bias, 1, padding)
        return batch_innermost.convolution(x, weight, bias, 1, padding)

    def torch_s(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, 1, padding)

    gradients, y = of_each_slice(ours, *given)
    expected, expected_y = of_each_slice(torch_s, *given)
    torch.testing.assert_close(y, expected_y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradients, expected, rtol=1e-11, atol=1e-11)


def test_pooling_with_the_batch_innermost_is_torch_s() -> None:
    x = in_memory(torch.randn(3, 4, 2, 6, 8).double(), (0, 2, 3, 4, 1))
    taken: list[bool] = []

    def ours(x: Tensor) -> Tensor:
        taken.append(batch_innermost.takes_pooling(x, 2))
        return batch_innermost.pooling(x)

    torch.testing.assert_close(of_each_slice(ours, x), of_each_slice(lambda x: F.avg_pool2d(x, 2), x))
    assert taken == [True]


def test_only_small_convolutions_and_what_follows_them_have_the_batch_innermost() -> None:
    x, weight, bias = torch.randn(4, 2, 6, 6), torch.randn(3, 2, 3, 3), torch.randn(3)
    assert batch_innermost.takes_convolution(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
    refused: list[tuple[Any, ...]] = [
        (x, weight, bias, (2, 2)),
        (x, weight, bias, 1, "same"),
        (x, weight, bias, 1, 3),
        (x, weight, bias, 1, 0, 2),
        (x, weight[:, :1], bias, 1, 0, 1, 2),
        (x[:, :1], weight),
        (x[0], weight),
        (x.half(), weight.half()),
        (x[..., :2], weight),
        (torch.randn(500, 4, 6, 6), torch.randn(3, 4, 3, 3)),
        (torch.randn(2000, 2, 6, 6), weight),
    ]
    assert not any(batch_innermost.takes_convolution(*one) for one in refused)
    assert batch_innermost.takes_convolution(torch.randn(500, 2, 6, 6), weight), "torch's takes channels by fours"
    assert not batch_innermost.takes_pooling(x, 2), "the batch is outermost"
    innermost = in_memory(x, (1, 2, 3, 0))
    assert batch_innermost.takes_pooling(innermost, (2, 2), (2, 2))
    pools: list[tuple[Any, ...]] = [(3,), (2, 1), (2, 2, 1), (2, 2, 0, True), (2, 2, 0, False, True, 3)]
    assert not any(batch_innermost.takes_pooling(innermost, *one) for one in pools)
    assert not batch_innermost.takes_pooling(innermost[:, :, :5], 2)


def test_second_derivatives_of_convolutions_are_refused_and_not_guessed() -> None:
    def scored(x: Tensor) -> Tensor:
        return batch_innermost.convolution(x, torch.ones(1, 1, 1, 1)).pow(2).sum()

    with pytest.raises(NotImplementedError):
        torch.func.grad(lambda x: torch.func.grad(scored)(x).sum())(torch.randn(2, 1, 3, 3))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_recurrence_and_its_gradients_are_those_of_its_steps(activation: str) -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape).double() for shape in ((3, 4, 5, 2), (3, 4, 2), (3, 2, 2))]

    def by_steps(mapped: Tensor, h: Tensor, weight: Tensor) -> Tensor:
        out = [h := getattr(torch, activation)(step + h @ weight.t()) for step in mapped.unbind(1)]
        return torch.stack(out, 1)

    ours = of_each_slice(lambda *arguments: elman(*arguments, activation), *given)
    torch.testing.assert_close(ours, of_each_slice(by_steps, *given), rtol=1e-11, atol=1e-11)


def test_second_derivatives_of_the_recurrence_are_refused_and_not_guessed() -> None:
    def scored(x: Tensor) -> Tensor:
        return elman(x, torch.zeros(2, 1), torch.ones(1, 1), "tanh").sum()

    with pytest.raises(NotImplementedError):
        torch.func.grad(lambda x: torch.func.grad(scored)(x).sum())(torch.randn(2, 3, 1))


@pytest.mark.parametrize("dims", [0, 1, 2])
@pytest.mark.parametrize("p", [0.0, 0.25, 0.9, 1.0])
def test_dropout_keeps_as_often_as_it_should_and_as_much_on_average(p: float, dims: int) -> None:
    torch.manual_seed(0)
    x = torch.ones(4, 300, 50, 3, 3)
    twin = DropoutTwin(torch.tensor(p, dtype=torch.float64), dims)
    out = twin(x)
    kept = out != 0
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / (1 - p) if p < 1 else 0.0))
    channels = kept.flatten(x.dim() - dims) if dims else kept.unsqueeze(-1)
    assert torch.equal(channels.any(-1), channels.all(-1)), "dropped together"
    share = channels[..., 0].double().mean()
    assert abs(share - (1 - p)) <= 5 * (p * (1 - p) / channels[..., 0].numel()) ** 0.5


def test_dropped_values_are_drawn_one_by_one() -> None:
    torch.manual_seed(0)
    kept = (DropoutTwin(0.5, 0)(torch.ones(1001, 64)) != 0).double()
    together = torch.corrcoef(kept.T) - torch.eye(64)
    assert together.abs().max() < 0.16, "five times what chance gives"
    apart = torch.corrcoef(torch.stack([kept.flatten()[:-1], kept.flatten()[1:]]))[0, 1]
    assert abs(apart) < 0.02
