"""The networks and their optimisers against numbers computed by hand (documented.md §2 to §7)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.data import Digits, TensorLoader
from tuner.models import MLP, Classifier
from tuner.models.layers.activations import ACTIVATIONS, activation, initialise
from tuner.models.layers.normalisation import NORMS_1D, norm_1d
from tuner.models.optimisation import OPTIMIZERS, OptimiserSettings, build_optimizer, decay_factor, parameter_groups
from tuner.training.blueprint import LEAN_TRAINER, quiet_lightning

MODELS: list[type[Classifier]] = [MLP]
every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These networks are too small to share between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def fitted(model: L.LightningModule, data: L.LightningDataModule, **trainer: Any) -> L.Trainer:
    quiet_lightning()
    made = L.Trainer(**{**LEAN_TRAINER, "accelerator": "cpu", "max_epochs": 1, **trainer})
    made.fit(model, datamodule=data)
    return made


# ---- optimisers, step by step (§2) ---------------------------------------------------------------------------------


def test_gradient_descent_takes_steps_of_alpha_times_the_gradient() -> None:
    assert descend([1.0, -3.0]) == pytest.approx([1.5, 3.0])


def test_momentum_is_a_filter_of_the_gradients() -> None:
    # v: 1 (torch starts at the first gradient), then 0.9 · 1 + 0.1 · 3 = 1.2, then 0.9 · 1.2 + 0.1 · 0 = 1.08
    assert descend([1.0, 3.0, 0.0], momentum=0.9) == pytest.approx([1.5, 0.9, 0.36])


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_size_of_a_step_does_not_change_with_the_momentum(beta: float) -> None:
    steady = descend([1.0] * 300, momentum=beta)
    assert steady[-2] - steady[-1] == pytest.approx(0.5)
    swinging = descend([0.0, 2.0] * 1000, momentum=beta)  # 1 on average
    assert (swinging[999] - swinging[1999]) / 1000 == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_torch_s_own_form_takes_the_same_steps_with_alpha_times_one_minus_beta(beta: float) -> None:
    gradients = [0.0, 1.0, -2.0, 0.5, 3.0]  # from a first gradient of 0 both start at v = 0
    weight = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))
    torch_s = torch.optim.SGD([weight], lr=0.5 * (1 - beta), momentum=beta)
    path = []
    for gradient in gradients:
        weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        torch_s.step()
        path.append(weight.item())
    assert descend(gradients, momentum=beta) == pytest.approx(path)


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
    grouped = [id(p) for group in parameter_groups(net.parameters(), 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_reaches_every_optimiser(optimizer: str) -> None:
    without = descend([1.0, 0.5, -2.0], optimizer=optimizer)
    assert descend([1.0, 0.5, -2.0], optimizer=optimizer, weight_decay=0.2)[-1] != pytest.approx(without[-1])


# ---- learning-rate decay (§3) --------------------------------------------------------------------------------------


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
    ],
)
def test_the_model_s_optimiser_follows_the_decay_epoch_by_epoch(
    form: str, coefficient: float, rates: list[float]
) -> None:
    model = MLP(learning_rate=0.6, lr_schedule=form, lr_decay=coefficient, input_shape=[4], num_classes=2)
    configured: Any = model.configure_optimizers()
    (optimizer,), (scheduler,) = configured
    seen = []
    for _ in range(3):
        seen.append({group["lr"] for group in optimizer.param_groups})
        optimizer.step()  # without gradients it moves nothing
        scheduler.step()
    assert [rate for (rate,) in seen] == pytest.approx(rates)


def test_a_trainer_decays_the_rate_once_an_epoch() -> None:
    model = MLP(hidden_units=4, depth=1, learning_rate=0.6, lr_decay=1.0)
    trainer = fitted(model, Digits(batch_size=256), max_epochs=3)
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


# ---- normalisation (§5) --------------------------------------------------------------------------------------------


def normalised_by(norm: str, x: Tensor) -> Tensor:
    """What comes out of the normaliser of an MLP with one hidden unit, w = (1, 1, 1) and b = 0."""
    model = MLP(hidden_units=1, depth=1, norm=norm, input_shape=[3], num_classes=2)
    assert isinstance(model.net, nn.Sequential)
    affine = linears(model.net)[0]
    nn.init.ones_(affine.weight)
    nn.init.zeros_(affine.bias)
    up_to = list(model.net).index(affine) + 2
    out: Tensor = model.net[:up_to](x)
    return out.detach().flatten()


BATCH = torch.tensor([[1.0, 2, 3], [2, 2, 1], [2, 1, 3], [3, 1, 1]])


def test_the_worked_example_of_batch_normalisation_comes_out() -> None:
    # z = 6, 5, 6, 5; mean 5.5; variance 0.25
    assert normalised_by("none", BATCH).tolist() == [6.0, 5.0, 6.0, 5.0]
    assert normalised_by("batch", BATCH).tolist() == pytest.approx([1.0, -1.0, 1.0, -1.0], abs=1e-4)


def test_batch_normalisation_with_the_batch_s_own_statistics_is_the_identity() -> None:
    # documented.md §5: γ = √(σ² + ε), β = μ
    layer = norm_1d("batch", 1)
    nn.init.constant_(layer.weight, math.sqrt(0.25 + 1e-5))
    nn.init.constant_(layer.bias, 5.5)
    z = torch.tensor([[6.0], [5.0], [6.0], [5.0]])
    assert layer(z).flatten().tolist() == pytest.approx(z.flatten().tolist(), abs=1e-5)


def test_at_inference_batch_normalisation_uses_running_statistics() -> None:
    layer = norm_1d("batch", 1)
    layer(torch.tensor([[6.0], [5.0], [6.0], [5.0]]))
    # torch's momentum 0.1: mean 0.1 · 5.5, variance 0.9 + 0.1 · 0.25 · 4/3
    expected = (6.0 - 0.55) / math.sqrt(0.9 + 0.1 / 3 + 1e-5)
    assert layer.eval()(torch.tensor([[6.0]])).item() == pytest.approx(expected, rel=1e-5)


def test_layer_normalisation_uses_each_sample_s_own_statistics_also_at_inference() -> None:
    layer = norm_1d("layer", 3).eval()
    alone = layer(torch.tensor([[1.0, 2.0, 3.0]]))
    assert alone.flatten().tolist() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5], abs=1e-4)
    assert torch.allclose(layer(torch.tensor([[1.0, 2.0, 3.0], [50.0, -9.0, 0.0]]))[:1], alone)


# ---- initialisation and activations (§4) ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "prelu"])
def test_layers_before_rectifiers_start_with_a_deviation_of_root_two_over_fan_in(name: str) -> None:
    torch.manual_seed(0)
    layer = initialise(nn.Linear(400, 300), name)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert layer.bias.abs().max().item() == 0.0


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
    first, second, output = linears(model)
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert second.weight.std().item() == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert output.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 500), rel=0.001)


def test_the_signal_of_a_deep_rectified_network_keeps_its_size_at_the_start() -> None:
    torch.manual_seed(0)
    model = MLP(hidden_units=512, depth=10, norm="none", input_shape=[512], num_classes=2)
    assert isinstance(model.net, nn.Sequential)
    hidden = model.net[:-1](torch.randn(64, 512))
    assert 0.3 < hidden.pow(2).mean().item() < 3.0


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


# ---- the MLP (§7) --------------------------------------------------------------------------------------------------


def test_an_mlp_is_affine_norm_activation_dropout_for_each_layer_and_a_linear_output() -> None:
    model = MLP(
        hidden_units=7, depth=2, activation="tanh", norm="layer", dropout=0.5, input_shape=[2, 3], num_classes=4
    )
    assert isinstance(model.net, nn.Sequential)
    hidden = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout]
    assert [type(layer) for layer in model.net] == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert [(layer.in_features, layer.out_features) for layer in linears(model)] == [(6, 7), (7, 7), (7, 4)]


def test_an_mlp_without_hidden_layers_is_logistic_regression() -> None:
    model = MLP(depth=0, input_shape=[3], num_classes=2)
    (layer,) = linears(model)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 2], [0, -1, 0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.0]))
    assert model(torch.tensor([[1.0, 2, 3]])).tolist() == [[7.5, -2.0]]


@pytest.mark.parametrize(
    ("name", "typo", "said"),
    [
        ("norm", "bach", r"norm must be one of batch, layer, none, but got 'bach'\. Did you mean 'batch'\?"),
        ("activation", "rellu", r"activation must be one of relu, .*, but got 'rellu'\. Did you mean 'relu'\?"),
        ("optimizer", "adma", r"optimizer must be one of sgd, .*, but got 'adma'\. Did you mean 'adam"),
        ("lr_schedule", "exponental", r"lr_schedule must be one of .*Did you mean 'exponential'\?"),
        ("norm", "zzz", r"but got 'zzz'\.$"),
    ],
)
def test_an_unknown_name_is_told_with_the_names_there_are(name: str, typo: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MLP(**{name: typo})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_units", 0),
        ("depth", -1),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", 1.5),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-3),
        ("lr_decay", -0.1),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.5),
        ("adam_eps", 0.0),
    ],
)
def test_a_number_outside_its_documented_range_is_told_when_the_model_is_made(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        MLP(**{name: value})


def test_a_model_takes_the_optimiser_s_hyperparameters_by_their_documented_names() -> None:
    model = MLP(
        optimizer="adamw",
        learning_rate=0.03,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_eps=1e-6,
        weight_decay=0.1,
        input_shape=[4],
        num_classes=2,
    )
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.03, (0.8, 0.95), 1e-6)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1, 0.0}


# ---- what every classifier promises --------------------------------------------------------------------------------


DOCUMENTED = {
    "learning_rate",
    "momentum",
    "lr_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_eps",
    "weight_decay",
    "optimizer",
    "lr_schedule",
    "input_shape",
    "num_classes",
}


@every_model
def test_a_model_has_the_documented_hyperparameters_by_name_with_defaults(model: type[Classifier]) -> None:
    parameters = inspect.signature(model).parameters
    assert parameters.keys() >= DOCUMENTED
    assert all(p.default is not inspect.Parameter.empty for p in parameters.values())
    made: Any = model()
    assert {name: made.hparams[name] for name in parameters} == {n: p.default for n, p in parameters.items()}


def shaped(model: type[Classifier], **arguments: Any) -> Classifier:
    made: Any = model
    classifier: Classifier = made(input_shape=[64], num_classes=10, **arguments)
    return classifier


@every_model
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_model_learns_a_batch_by_heart(model: type[Classifier], optimizer: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(32, 64), torch.arange(32) % 10
    made = shaped(model, optimizer=optimizer, learning_rate=0.1 if optimizer == "sgd" else 0.01)
    descent = made.configure_optimizers()
    assert isinstance(descent, torch.optim.Optimizer)
    for _ in range(60):
        loss = F.cross_entropy(made(x), y)
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert (made(x).argmax(dim=1) == y).all()
    assert loss.item() < 0.1


@every_model
@pytest.mark.parametrize("norm", NORMS_1D)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_model_works_on_one_sample_in_eval_mode(model: type[Classifier], norm: str, name: str) -> None:
    made = shaped(model, norm=norm, activation=name).eval()
    x = torch.randn(3, 64)
    together = made(x)
    assert together.shape == (3, 10)
    assert together.isfinite().all()
    alone = torch.cat([made(sample[None]) for sample in x])
    assert torch.allclose(alone, together, atol=1e-5)


@every_model
def test_the_same_seed_gives_the_same_weights(model: type[Classifier]) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(shaped(model).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@every_model
def test_a_checkpoint_loads_without_the_data_it_was_trained_on(model: type[Classifier], tmp_path: Path) -> None:
    L.seed_everything(3, verbose=False)
    trained: Any = model
    trained = trained(optimizer="adam", learning_rate=0.01)
    trainer = fitted(trained, Digits(batch_size=256))
    path = tmp_path / "weights.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    loaded = model.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    x = torch.randn(5, 64)
    assert torch.equal(loaded(x), trained.eval()(x))
    assert dict(loaded.hparams) == dict(trained.hparams)
    assert loaded.hparams["learning_rate"] == 0.01
    assert (list(loaded.hparams["input_shape"]), loaded.hparams["num_classes"]) == ([64], 10)


@every_model
def test_a_model_takes_its_shapes_from_the_data_and_logs_the_documented_metrics(model: type[Classifier]) -> None:
    made = model()
    trainer = fitted(made, Digits(batch_size=128))
    assert trainer.callback_metrics.keys() >= {"train_loss", "train_acc", "val_loss", "val_acc"}
    assert 0 < trainer.callback_metrics["val_acc"] <= 1
    (tested,) = trainer.test(made, datamodule=Digits(), verbose=False)
    assert tested.keys() == {"test_loss", "test_acc"}


@every_model
def test_logged_metrics_are_means_over_samples_not_over_batches(model: type[Classifier]) -> None:
    torch.manual_seed(0)
    made = shaped(model).eval()
    x, y = torch.randn(10, 64), torch.arange(10)
    quiet_lightning()
    trainer = L.Trainer(**LEAN_TRAINER, accelerator="cpu")
    (logged,) = trainer.validate(made, dataloaders=TensorLoader((x, y), 7), verbose=False)
    logits = made.eval()(x)
    by_hand = (torch.logsumexp(logits, dim=1) - logits[torch.arange(10), y]).mean().item()
    assert logged["val_loss"] == pytest.approx(by_hand, rel=1e-5)
    assert logged["val_acc"] == pytest.approx(sum(logits[i].argmax().item() == i for i in range(10)) / 10)


@every_model
def test_predictions_are_probabilities(model: type[Classifier]) -> None:
    made = shaped(model).eval()
    x = torch.randn(4, 64)
    probabilities = made.predict_step((x, torch.zeros(4)), 0)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(4))
    assert torch.equal(probabilities, made.predict_step(x, 0))
    assert torch.equal(probabilities.argmax(dim=1), made(x).argmax(dim=1))


@every_model
def test_a_model_without_shapes_says_what_it_needs(model: type[Classifier]) -> None:
    made = model()
    with pytest.raises(RuntimeError, match="give input_shape and num_classes"):
        made(torch.randn(1, 64))
    with pytest.raises(ValueError, match="needs input_shape and num_classes, and the data module Shapeless has not"):
        fitted(made, Shapeless())


class Shapeless(L.LightningDataModule):
    def train_dataloader(self) -> TensorLoader:
        return TensorLoader((torch.randn(4, 64), torch.arange(4)), 2)

    def val_dataloader(self) -> TensorLoader:
        return self.train_dataloader()


@every_model
def test_a_model_keeps_the_shapes_it_was_given(model: type[Classifier]) -> None:
    made = shaped(model)
    net = made.net
    made.adopt([8], 2)
    assert made.net is net
    assert made(torch.randn(2, 64)).shape == (2, 10)
