"""Optimisers, weight decay and learning-rate decay, against steps computed by hand (documented.md §2, §3, §6)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import Given, fitted, vectors
from torch import nn

from tuner.models import MLP
from tuner.models.optimisation import OPTIMIZERS, OptimiserSettings, build_optimizer, decay_factor, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(**changed: Any) -> OptimiserSettings:
    values: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_eps": 1e-12,
    }
    return OptimiserSettings(**values | changed)


def descend(gradients: list[float], start: float = 2.0, **changed: Any) -> list[float]:
    """Follow one weight of shape (1, 1) along given gradients."""
    weight = nn.Parameter(torch.full((1, 1), start, dtype=torch.float64))
    optimizer = build_optimizer([weight], settings(**changed))
    path = []
    for gradient in gradients:
        weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        path.append(weight.item())
    return path


# ---- optimisers, step by step (§2) ---------------------------------------------------------------------------------


def test_gradient_descent_takes_steps_of_alpha_times_the_gradient() -> None:
    assert descend([1.0, -3.0]) == pytest.approx([1.5, 3.0])


def test_momentum_is_a_filter_of_the_gradients() -> None:
    # v: 0.1 · 1 = 0.1, then 0.9 · 0.1 + 0.1 · 3 = 0.39, then 0.9 · 0.39 + 0.1 · 0 = 0.351
    assert descend([1.0, 3.0, 0.0], momentum=0.9) == pytest.approx([1.95, 1.755, 1.5795])


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_every_gradient_moves_the_weight_by_alpha_in_all_also_the_first(beta: float) -> None:
    for place in (0, 1, 5):
        gradients = [0.0] * 3000
        gradients[place] = 1.0
        assert 2.0 - descend(gradients, momentum=beta)[-1] == pytest.approx(0.5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_size_of_a_step_does_not_change_with_the_momentum(beta: float) -> None:
    steady = descend([1.0] * 3000, momentum=beta)
    assert steady[-2] - steady[-1] == pytest.approx(0.5)
    swinging = descend([0.0, 2.0] * 1000, momentum=beta)  # 1 on average
    assert (swinging[999] - swinging[1999]) / 1000 == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_torch_s_own_form_takes_the_same_steps_with_alpha_times_one_minus_beta(beta: float) -> None:
    gradients = [1.0, -2.0, 0.5, 3.0]
    weight = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))
    torch_s = torch.optim.SGD([weight], lr=0.5 * (1 - beta), momentum=beta)
    path = []
    for gradient in gradients:
        weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        torch_s.step()
        path.append(weight.item())
    assert descend(gradients, momentum=beta) == pytest.approx(path)


def by_filter(gradients: list[float], alpha: float, beta: float, nesterov: bool) -> list[float]:
    """Filter v ← β v + (1-β) g from v = 0, then a step along v, or with Nesterov along (1-β) g + β v."""
    theta, v, path = 2.0, 0.0, []
    for g in gradients:
        v = beta * v + (1 - beta) * g
        theta -= alpha * ((1 - beta) * g + beta * v if nesterov else v)
        path.append(theta)
    return path


def test_nesterov_s_first_steps_come_out_by_hand() -> None:
    # v = 0.5 · 4 = 2, a step along 0.5 · 4 + 0.5 · 2 = 3; then v = 0.5 · 2 + 0.5 · 2 = 2, along 0.5 · 2 + 0.5 · 2 = 2
    assert descend([4.0, 2.0], momentum=0.5, nesterov=True) == pytest.approx([2 - 0.5 * 3, 2 - 0.5 * 3 - 0.5 * 2])


@pytest.mark.parametrize("beta", [0.3, 0.9, 0.99])
def test_nesterov_looks_ahead_along_the_filter(beta: float) -> None:
    gradients = [1.0, -2.0, 0.5, 3.0, 3.0, -1.0]
    path = descend(gradients, momentum=beta, nesterov=True)
    assert path == pytest.approx(by_filter(gradients, 0.5, beta, nesterov=True))
    assert path != pytest.approx(by_filter(gradients, 0.5, beta, nesterov=False))


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_steady_gradients_give_nesterov_steps_of_alpha(beta: float) -> None:
    steady = descend([1.0] * 300, momentum=beta, nesterov=True)
    assert steady[-2] - steady[-1] == pytest.approx(0.5)


def test_nesterov_without_momentum_is_plain_descent() -> None:
    assert descend([1.0, -3.0], nesterov=True) == pytest.approx([1.5, 3.0])


def test_adagrad_divides_by_the_root_of_all_squared_gradients() -> None:
    # 3/√9 = 1, 4/√(9+16) = 0.8
    assert descend([3.0, 4.0], optimizer="adagrad") == pytest.approx([1.5, 1.1])


def test_rmsprop_divides_by_the_root_of_their_moving_average() -> None:
    # 3/√4.5, 4/√(2.25 + 8)
    path = descend([3.0, 4.0], optimizer="rmsprop", adam_beta2=0.5)
    assert path == pytest.approx([2 - 0.5 * 1.4142135623730951, 2 - 0.5 * (1.4142135623730951 + 1.2493900951088486)])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_joins_both_averages_and_corrects_their_start(optimizer: str) -> None:
    # means 1.5 and 2.75, squares 4.5 and 10.25; corrected by 0.5 and 0.75: 3/√9 = 1, (2.75/0.75)/√(10.25/0.75)
    path = descend([3.0, 4.0], optimizer=optimizer, adam_beta1=0.5, adam_beta2=0.5)
    assert path == pytest.approx([1.5, 1.5 - 0.5 * 0.9918364398])


def test_adam_s_epsilon_stands_under_the_fraction() -> None:
    # 3 / (3 + 3)
    assert descend([3.0], optimizer="adam", adam_eps=3.0) == pytest.approx([1.75])


# ---- weight decay (§6) ---------------------------------------------------------------------------------------------


def test_weight_decay_shrinks_a_weight_by_alpha_times_its_strength() -> None:
    # (1 - 0.5 · 0.2) · 2 - 0.5 · 1
    assert descend([1.0], weight_decay=0.2) == pytest.approx([1.3])


@pytest.mark.parametrize("strength", [0.05, 0.2])
def test_for_plain_gradient_descent_weight_decay_is_the_l2_penalty(strength: float) -> None:
    weight = torch.tensor([[2.0]], requires_grad=True)
    (3.0 * weight + strength / 2 * weight**2).sum().backward()
    assert weight.grad is not None
    by_penalty = 2.0 - 0.5 * weight.grad.item()
    assert descend([3.0], weight_decay=strength) == pytest.approx([by_penalty])


def test_in_adam_weight_decay_enters_the_gradient_and_in_adamw_it_does_not() -> None:
    # Adam's first step is α whatever the size of the gradient: the decay is lost in it.
    assert descend([1.0], optimizer="adam", weight_decay=0.2) == pytest.approx([1.5])
    assert descend([1.0], optimizer="adamw", weight_decay=0.2) == pytest.approx([1.3])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_leaves_biases_normalisers_and_prelu_slopes_alone(optimizer: str) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.PReLU(), nn.LayerNorm(2), nn.Linear(2, 1))
    before = {name: parameter.detach().clone().fill_(1.0) for name, parameter in net.named_parameters()}
    net.load_state_dict(before, strict=False)
    optimizer_ = build_optimizer(net.parameters(), settings(optimizer=optimizer, weight_decay=0.2))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer_.step()
    after = {name: parameter.unique().tolist() for name, parameter in net.named_parameters()}
    decayed = {name for name, values in after.items() if values != [1.0]}
    assert decayed == {"0.weight", "4.weight"}
    assert after["0.weight"] == after["4.weight"] == pytest.approx([0.9])


def test_every_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.PReLU(), nn.Linear(2, 1))
    net[2].weight.requires_grad = False
    groups: Any = parameter_groups(net.parameters(), 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_reaches_every_optimiser(optimizer: str) -> None:
    without = descend([1.0, 0.5, -2.0], optimizer=optimizer)
    assert descend([1.0, 0.5, -2.0], optimizer=optimizer, weight_decay=0.2)[-1] != pytest.approx(without[-1])


# ---- learning-rate decay over epochs (§3) --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "coefficient", "epochs", "rates"),
    [
        ("inverse", 1.0, [0, 1, 2, 3], [0.6, 0.3, 0.2, 0.15]),
        ("inverse", 0.5, [0, 2, 4], [0.6, 0.3, 0.2]),
        ("exponential", 0.5, [0, 1, 2, 3], [0.6, 0.3, 0.15, 0.075]),
        ("sqrt", 1.0, [0, 3, 8, 99], [0.6, 0.3, 0.2, 0.06]),
        ("sqrt", 2.0, [0, 3], [1.2, 0.6]),
        ("step", 0.5, [0, 9, 10, 19, 20, 35], [0.6, 0.6, 0.3, 0.3, 0.15, 0.075]),
        ("step", 1.0, [0, 9, 10], [0.6, 0.6, 0.6]),
    ],
)
def test_a_decay_gives_the_documented_rate_at_each_epoch(
    form: str, coefficient: float, epochs: list[int], rates: list[float]
) -> None:
    factor = decay_factor(form, coefficient)
    assert factor is not None
    assert [0.6 * factor(t) for t in epochs] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("stair", "epochs", "factors"),
    [(1, [0, 1, 2, 3], [1, 0.5, 0.25, 0.125]), (3, [0, 2, 3, 5, 6, 8, 9], [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125])],
)
def test_a_stair_of_the_step_decay_is_so_many_epochs(stair: int, epochs: list[int], factors: list[float]) -> None:
    factor = decay_factor("step", 0.5, stair)
    assert factor is not None
    assert [factor(t) for t in epochs] == factors


def test_a_stair_shorter_than_an_epoch_is_told() -> None:
    with pytest.raises(ValueError, match="lr_step must be at least 1, but got 0"):
        decay_factor("step", 0.5, 0)


@pytest.mark.parametrize(("form", "coefficient"), [("none", 0.3), ("inverse", 0.0)])
def test_without_decay_there_is_no_scheduler(form: str, coefficient: float) -> None:
    assert decay_factor(form, coefficient) is None
    model = MLP(lr_schedule=form, lr_decay=coefficient, input_shape=[4], num_classes=2)
    assert isinstance(model.configure_optimizers(), torch.optim.Optimizer)


@pytest.mark.parametrize(
    ("form", "coefficient", "rates"),
    [
        ("inverse", 1.0, [0.6, 0.3, 0.2]),
        ("exponential", 0.5, [0.6, 0.3, 0.15]),
        ("sqrt", 2.0, [1.2, 0.6 * 2**0.5, 1.2 / 3**0.5]),
        ("step", 0.5, [0.6, 0.6, 0.3]),
    ],
)
def test_the_model_s_optimiser_follows_the_decay_epoch_by_epoch(
    form: str, coefficient: float, rates: list[float]
) -> None:
    model = MLP(learning_rate=0.6, lr_schedule=form, lr_decay=coefficient, lr_step=2, input_shape=[4], num_classes=2)
    configured: Any = model.configure_optimizers()
    (optimizer,), (scheduler,) = configured
    seen = []
    for _ in range(3):
        seen.append({group["lr"] for group in optimizer.param_groups})
        optimizer.step()  # without gradients it moves nothing
        scheduler.step()
    assert [rate for (rate,) in seen] == pytest.approx(rates)


def test_a_trainer_decays_the_rate_once_an_epoch() -> None:
    model = MLP(hidden_units=4, depth=1, learning_rate=0.6, lr_schedule="inverse", lr_decay=1.0)
    data = Given([vectors(4), vectors(4)], input_shape=[12], num_classes=10)
    trainer = fitted(model, data, max_epochs=3)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.6 / 4)


@pytest.mark.parametrize(
    ("form", "coefficient", "said"),
    [
        ("inverse", -0.1, "at least 0"),
        ("exponential", 0.0, "above 0 and at most 1"),
        ("exponential", 1.5, "above 0 and at most 1"),
        ("step", -0.5, "above 0 and at most 1"),
        ("sqrt", -1.0, "at least 0|above 0"),
        ("sqrt", 0.0, "above 0"),  # a rate of 0 from the first epoch on learns nothing
        ("inverze", 0.1, r"lr_schedule must be one of .* Did you mean 'inverse'\?"),
    ],
)
def test_a_decay_outside_its_range_is_told(form: str, coefficient: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decay_factor(form, coefficient)


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-3),
        ("adam_beta1", 1.0),
        ("adam_beta1", -0.5),
        ("adam_beta2", 1.0),
        ("adam_eps", 0.0),
    ],
)
def test_a_setting_outside_its_range_is_told(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .*, but got {value}"):
        settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("momentum", 0.0), ("weight_decay", 0.0), ("adam_beta1", 0.0)])
def test_zero_is_inside_the_ranges_that_include_it(name: str, value: float) -> None:
    assert getattr(settings(**{name: value}), name) == 0.0


def test_an_unknown_optimiser_is_told_with_the_closest_name() -> None:
    with pytest.raises(ValueError, match=r"optimizer must be one of sgd, .*, but got 'adma'\. Did you mean 'adam"):
        settings(optimizer="adma")


def test_a_model_takes_the_optimiser_s_hyperparameters_by_their_documented_names() -> None:
    model = MLP(
        optimizer="adamw",
        learning_rate=0.03,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_eps=1e-6,
        weight_decay=0.1,
        lr_schedule="none",
        input_shape=[4],
        num_classes=2,
    )
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.03, (0.8, 0.95), 1e-6)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1, 0.0}
