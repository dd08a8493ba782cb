"""The ℓp penalty, dropout and clipping against their definitions (documented.md §6)."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pytest
import torch
from networks import Batches, Given, fitted, layers_of, lean, of_type, vectors
from torch import Tensor, nn

from tuner.models import MLP, MLPRegressor, RNNLanguageModel
from tuner.models.layers.modes import dropping
from tuner.models.regularisation import lp_penalty

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES: dict[str, Any] = {"input_shape": [12], "num_classes": 10}
PLAIN: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "lr_schedule": "none", "weight_decay": 0.0}


def weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([values]))


# ---- the ℓp penalty ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "value"),
    [(1.0, 4 + 1 + 1 / 4 + 9), (1.5, 8 + 1 + 1 / 8 + 27), (2.0, 16 + 1 + 1 / 16 + 81), (3.0, 64 + 1 + 1 / 64 + 729)],
)
def test_the_penalty_is_the_sum_of_the_powers_of_the_weights(p: float, value: float) -> None:
    assert lp_penalty([weight(4.0, -1.0, 0.25, -9.0, 0.0)], p).item() == pytest.approx(value)


@pytest.mark.parametrize(
    ("p", "gradient"),
    [
        (1.0, [1.0, -1.0, 1.0, 0.0]),  # the sign
        (1.5, [3.0, -1.5, 0.75, 0.0]),  # 1.5 √|θ|, with the sign
        (2.0, [8.0, -2.0, 0.5, 0.0]),  # 2 θ
        (3.0, [48.0, -3.0, 0.1875, 0.0]),  # 3 θ², with the sign
    ],
)
def test_the_gradient_of_the_penalty_comes_out_by_hand(p: float, gradient: list[float]) -> None:
    weights = weight(4.0, -1.0, 0.25, 0.0)
    lp_penalty([weights], p).backward()
    assert weights.grad is not None
    assert weights.grad.flatten().tolist() == pytest.approx(gradient)


def test_the_penalty_adds_up_over_all_weights_and_leaves_frozen_ones_out() -> None:
    frozen = weight(100.0)
    frozen.requires_grad = False
    assert lp_penalty([weight(1.0, 2.0), weight(3.0), frozen], 2.0).item() == 14.0
    assert lp_penalty([frozen], 2.0).item() == 0.0


def test_the_penalty_touches_only_weights() -> None:
    net = nn.Sequential(
        nn.Linear(3, 2), nn.BatchNorm1d(2), nn.PReLU(), nn.LayerNorm(2), nn.Unflatten(1, (2, 1, 1)), nn.Conv2d(2, 1, 1)
    )
    lp_penalty(net.parameters(), 2.0).backward()
    assert {name for name, parameter in net.named_parameters() if parameter.grad is not None} == {
        "0.weight",
        "5.weight",
    }


def test_the_weights_of_a_recurrent_layer_and_an_embedding_are_penalised_too() -> None:
    model = RNNLanguageModel(hidden_units=3, cell="gru", embedding_units=2, vocab_size=5)
    lp_penalty(model.parameters(), 1.0).backward()
    touched = {name.split(".")[-1] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {"weight", "weight_ih_l0", "weight_hh_l0"}
    assert sum(p.grad is not None for p in model.parameters()) == 4


def after_an_epoch(**arguments: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = MLP(**{"hidden_units": 8, "depth": 1, "dropout": 0.0, "learning_rate": 0.05, **PLAIN, **arguments})
    fitted(model, Given([vectors(8) for _ in range(4)], **SHAPES))
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_a_penalty_with_p_2_is_weight_decay_of_twice_its_strength_for_plain_descent() -> None:
    by_penalty = after_an_epoch(penalty=0.3, penalty_p=2.0)
    by_decay = after_an_epoch(weight_decay=0.6)
    without = after_an_epoch()
    for name, value in by_decay.items():
        assert torch.allclose(by_penalty[name], value, atol=1e-5), name
    assert not torch.allclose(without["net.1.weight"], by_decay["net.1.weight"], atol=1e-3)


def test_for_adam_the_penalty_is_not_the_decoupled_decay_of_adamw() -> None:
    by_penalty = after_an_epoch(penalty=0.3, optimizer="adam")
    by_decay = after_an_epoch(weight_decay=0.6, optimizer="adamw")
    assert not torch.allclose(by_penalty["net.1.weight"], by_decay["net.1.weight"], atol=1e-2)


def test_an_l1_penalty_drives_the_weights_of_irrelevant_inputs_to_zero_and_l2_shrinks_all_in_proportion() -> None:
    # Eight inputs with mean 0, variance 1 and no correlation; two matter, six only seem to matter a little.
    torch.manual_seed(0)
    orthogonal, _ = torch.linalg.qr(torch.cat([torch.ones(64, 1), torch.randn(64, 8)], dim=1))
    x = 8 * orthogonal[:, 1:]
    best = [3, -2, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1]
    y = x @ torch.tensor(best)

    def trained(**arguments: Any) -> list[float]:
        model = MLPRegressor(depth=0, learning_rate=0.05, **PLAIN, **arguments)
        data = Given([(x, y)], input_shape=[8], target_mean=0.0, target_std=1.0)
        fitted(model, data, max_epochs=200, limit_val_batches=0)
        (layer,) = of_type(model, nn.Linear)
        weights: list[float] = layer.weight.flatten().tolist()
        return weights

    # For such inputs the loss is Σ (w_j - best_j)².
    assert trained() == pytest.approx(best, abs=1e-3)
    # λ/2 off each, down to zero; up to one step of α λ, because the sign jumps there
    assert trained(penalty=1.0, penalty_p=1.0) == pytest.approx([2.5, -1.5, 0, 0, 0, 0, 0, 0], abs=0.051)
    # all by the same factor 1/(1 + λ), none to zero
    assert trained(penalty=1.0, penalty_p=2.0) == pytest.approx([w / 2 for w in best], abs=1e-3)


@pytest.mark.parametrize("model", [MLP, MLPRegressor, RNNLanguageModel])
def test_training_descends_the_penalty_but_logs_the_loss_without_it(model: Any) -> None:
    torch.manual_seed(0)
    texts = torch.randint(5, (4, 7))
    cases: dict[Any, tuple[Any, Any]] = {
        MLP: ({"input_shape": [12], "num_classes": 10}, vectors(4)),
        MLPRegressor: (
            {"input_shape": [12], "target_mean": 0.0, "target_std": 1.0},
            (torch.randn(4, 12), torch.ones(4)),
        ),
        RNNLanguageModel: ({"vocab_size": 5}, (texts[:, :-1], texts[:, 1:])),
    }
    shapes, batch = cases[model]
    made = model(hidden_units=8, depth=1, penalty=0.5, penalty_p=1.0, **shapes)
    seen: dict[str, float] = {}

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
            seen["descended"] = outputs["loss"].item()

    weights = sum(p.detach().abs().sum().item() for p in made.parameters() if p.ndim > 1)
    trainer = fitted(made, Given([batch]), callbacks=[Watch()])
    logged = trainer.callback_metrics["train_loss"].item()
    assert seen["descended"] - logged == pytest.approx(0.5 * weights, rel=1e-4)
    assert weights > 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("penalty", -0.1, "penalty must be at least 0, but got -0.1"),
        ("penalty_p", 0.5, "penalty_p must be at least 1, but got 0.5"),
    ],
)
def test_a_penalty_outside_its_range_is_told(name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MLP(**{name: value})


# ---- dropout -------------------------------------------------------------------------------------------------------


def linear_network(dropout: float) -> MLP:
    """Two linear layers with dropout between them: a hidden layer of PReLUs whose slope is 1."""
    torch.manual_seed(0)
    model = MLP(
        hidden_units=32, depth=1, activation="prelu", norm="none", dropout=dropout, input_shape=[12], num_classes=3
    )
    (slope,) = of_type(model, nn.PReLU)
    nn.init.ones_(slope.weight)
    return model


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_for_a_linear_network_weight_scaling_is_the_mean_over_sampled_networks(rate: float) -> None:
    model, x, draws = linear_network(rate), torch.randn(1, 12), 20_000
    with torch.no_grad():
        sampled = model.train()(x.expand(draws, -1))  # (N, 3), every row through a network of its own
        scaled = model.eval()(x)
    error = sampled.std(dim=0) / math.sqrt(draws)
    assert (error > 0).all()
    assert ((sampled.mean(dim=0) - scaled[0]).abs() < 4 * error).all()


def test_dropping_scales_what_it_keeps_by_one_over_one_minus_p() -> None:
    torch.manual_seed(0)
    model = linear_network(0.25).train()
    *_, dropout, output = layers_of(model)
    assert isinstance(dropout, nn.Dropout)
    values = dropout(torch.ones(100, 1000)).unique().tolist()
    assert values == pytest.approx([0.0, 4 / 3])
    assert isinstance(output, nn.Linear)


def test_each_unit_is_dropped_with_probability_p() -> None:
    torch.manual_seed(0)
    (dropout,) = of_type(linear_network(0.3), nn.Dropout)
    share = (dropout.train()(torch.ones(100, 1000)) == 0).float().mean().item()
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 1e5))


def dropping_network(**arguments: Any) -> MLP:
    torch.manual_seed(0)
    model = MLP(**{"hidden_units": 16, "dropout": 0.4, "norm": "batch", **SHAPES, **arguments})
    fitted(model, Given([vectors(16) for _ in range(3)]))  # so that running statistics are their own
    return model


def test_probabilities_of_sampled_networks_are_averaged() -> None:
    model = dropping_network().eval()
    x = torch.randn(5, 12)
    torch.manual_seed(1)
    averaged = model.predict_proba(x, samples=3)
    torch.manual_seed(1)
    for dropout in of_type(model, nn.Dropout):
        dropout.train()
    with torch.no_grad():
        by_hand = sum(torch.softmax(model(x), dim=1) for _ in range(3)) / 3
    assert torch.allclose(averaged, torch.as_tensor(by_hand), atol=1e-6)
    assert torch.allclose(averaged.sum(dim=1), torch.ones(5))


def test_without_samples_or_without_dropout_probabilities_are_those_of_the_one_network() -> None:
    model = dropping_network().eval()
    x = torch.randn(5, 12)
    assert torch.equal(model.predict_proba(x), torch.softmax(model(x), dim=1).detach())
    assert not torch.allclose(model.predict_proba(x, samples=1), model.predict_proba(x), atol=1e-4)
    steady = dropping_network(dropout=0.0).eval()
    assert torch.equal(steady.predict_proba(x, samples=5), steady.predict_proba(x))


@pytest.mark.parametrize("samples", [0, 4])
def test_asking_a_training_network_for_probabilities_changes_nothing_in_it(samples: int) -> None:
    model = dropping_network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probabilities = model.predict_proba(torch.randn(5, 12) + 7, samples)
    assert not probabilities.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_sampled_networks_normalise_with_running_statistics() -> None:
    model = dropping_network().train()
    x = torch.randn(2, 12)
    torch.manual_seed(1)
    among = model.predict_proba(torch.cat([x, 50 + torch.randn(1, 12)]), samples=2000)[:2]
    assert torch.allclose(model.predict_proba(x, samples=2000), among, atol=0.05)


@pytest.mark.parametrize("samples", [0, 3])
def test_each_module_is_left_in_the_mode_it_had(samples: int) -> None:
    model = dropping_network().train()
    frozen = of_type(model, nn.BatchNorm1d)[0].eval()  # as fine-tuning does
    model.predict_proba(torch.randn(5, 12), samples)
    assert not frozen.training
    assert model.training


def test_modes_come_back_after_an_error() -> None:
    model = dropping_network().train()
    with pytest.raises(RuntimeError):
        model.predict_proba(torch.randn(5, 7), samples=2)
    assert all(module.training for module in model.modules())


def test_dropping_tells_whether_there_is_anything_to_drop() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()
    with dropping(net) as drops:
        assert drops
        assert [module.training for module in net] == [False, False, True]
    assert not any(module.training for module in net)
    for without in (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Dropout(0.0))):
        with dropping(without) as drops:
            assert not drops


def test_a_trainer_s_predictions_average_mc_samples() -> None:
    x = torch.randn(6, 12)
    model, one = dropping_network(mc_samples=4000), dropping_network(mc_samples=0)
    loader = Batches([(x, torch.zeros(6))])
    predicted: list[Any] = [lean().predict(m, dataloaders=loader) for m in (model, one)]
    (sampled,), (scaled,) = predicted
    assert torch.allclose(sampled.sum(dim=1), torch.ones(6), atol=1e-5)
    assert torch.equal(scaled, one.predict_proba(x))
    torch.manual_seed(3)
    again = model.predict_proba(x, samples=4000)
    assert torch.allclose(sampled, again, atol=0.03)
    assert not torch.equal(sampled, again)
    assert not torch.equal(sampled, scaled)


def test_negative_mc_samples_are_told() -> None:
    with pytest.raises(ValueError, match="mc_samples must be at least 0, but got -1"):
        MLP(mc_samples=-1)


# ---- clipping ------------------------------------------------------------------------------------------------------


class Planted(L.Callback):
    """Puts a gradient of a given norm into the parameters, before it is clipped."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        torch.manual_seed(5)
        for parameter in pl_module.parameters():
            parameter.grad = torch.randn_like(parameter)
        flat = whole(pl_module)
        for parameter in pl_module.parameters():
            assert parameter.grad is not None
            parameter.grad *= self.scale / flat.norm()
        self.before = whole(pl_module)


def whole(module: nn.Module) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([p.grad.flatten().clone() for p in module.parameters() if p.grad is not None])


def clipped(norm: float, clip_norm: float | None, **trainer: Any) -> tuple[Tensor, Tensor]:
    """A gradient planted with this norm, and what of it the optimiser takes."""
    model = MLP(hidden_units=8, depth=2, clip_norm=clip_norm, **{**PLAIN, "learning_rate": 1.0, **SHAPES})
    planted = Planted(norm)
    start = [p.detach().clone() for p in model.parameters()]
    fitted(model, Given([vectors(8)]), callbacks=[planted], limit_val_batches=0, **trainer)
    moved = torch.cat([(a - b.detach()).flatten() for a, b in zip(start, model.parameters(), strict=True)])
    return planted.before, moved  # plain descent with α = 1 moves by the gradient it is given


@pytest.mark.parametrize("r", [0.5, 1.0, 3.0])
def test_a_large_gradient_is_cut_to_the_norm_and_keeps_its_direction(r: float) -> None:
    before, after = clipped(10.0, r)
    assert before.norm().item() == pytest.approx(10.0, rel=1e-4)
    assert after.norm().item() == pytest.approx(r, rel=1e-3)
    assert torch.allclose(after, before * r / 10, atol=1e-5)


@pytest.mark.parametrize("r", [10.5, None])
def test_a_smaller_gradient_stays_untouched_and_none_clips_nothing(r: float | None) -> None:
    before, after = clipped(10.0, r)
    assert torch.allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(("clip_norm", "clip_val", "norm"), [(2.0, 5.0, 2.0), (5.0, 2.0, 2.0), (None, 2.0, 2.0)])
def test_of_the_model_s_and_the_trainer_s_clipping_the_smaller_acts(
    clip_norm: float | None, clip_val: float, norm: float
) -> None:
    before, after = clipped(10.0, clip_norm, gradient_clip_val=clip_val)
    assert torch.allclose(after, before * norm / 10, atol=1e-4)


def test_the_trainer_s_clipping_by_value_acts_before_the_model_s_by_norm() -> None:
    before, after = clipped(10.0, 1.0, gradient_clip_val=0.1, gradient_clip_algorithm="value")
    by_value = before.clamp(-0.1, 0.1)
    assert by_value.norm() > 1
    assert torch.allclose(after, by_value / by_value.norm(), atol=1e-4)


@pytest.mark.parametrize("r", [0.0, -1.0])
def test_a_norm_that_is_not_above_zero_is_told(r: float) -> None:
    with pytest.raises(ValueError, match=f"clip_norm must be above 0, but got {r}"):
        MLP(clip_norm=r)


def test_clipping_is_on_by_default_in_the_recurrent_network_and_off_in_the_others() -> None:
    assert RNNLanguageModel().hparams["clip_norm"] == 1.0
    assert MLP().hparams["clip_norm"] is None
    assert MLPRegressor().hparams["clip_norm"] is None
