"""What every final network promises, for each row of the table in `networks.py` (documented.md §7)."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from networks import CASES, Case, Given, every_case, fitted, lean
from torch import Tensor, nn

import tuner.models
from tuner.models import MLP, Classifier, LanguageModel, Network
from tuner.models.layers.activations import ACTIVATIONS
from tuner.models.layers.normalisation import NORMS_1D, NORMS_2D
from tuner.models.optimisation import DECAYS, OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread")

DOCUMENTED = {
    "learning_rate",
    "momentum",
    "nesterov",
    "lr_schedule",
    "lr_decay",
    "lr_step",
    "adam_beta1",
    "adam_beta2",
    "adam_eps",
    "weight_decay",
    "penalty",
    "penalty_p",
    "clip_norm",
    "optimizer",
    "hidden_units",
    "depth",
    "activation",
    "norm",
    "norm_groups",
    "dropout",
}


def test_every_final_network_is_in_the_table() -> None:
    offered = [getattr(tuner.models, name) for name in tuner.models.__all__]
    networks = {c for c in offered if inspect.isclass(c) and issubclass(c, Network)}
    final = {c for c in networks if not any(other is not c and issubclass(other, c) for other in networks)}
    assert final == {case.model for case in CASES.values()}


def test_every_normaliser_and_activation_of_the_package_is_tried() -> None:
    tried = [(set(case.norms), set(case.activations)) for case in CASES.values()]
    assert set.union(*(norms for norms, _ in tried)) == NORMS_1D.keys() | NORMS_2D.keys()
    assert set.union(*(activations for _, activations in tried)) == set(ACTIVATIONS)


# ---- arguments -----------------------------------------------------------------------------------------------------


@every_case
def test_it_has_the_documented_hyperparameters_by_name_with_defaults(case: Case) -> None:
    parameters = inspect.signature(case.model).parameters
    assert parameters.keys() >= DOCUMENTED | set(case.model.SHAPES)
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert dict(case.model().hparams) == defaults
    assert all(defaults[name] is None for name in case.model.SHAPES)


@every_case
def test_its_hyperparameters_are_plain_values(case: Case) -> None:
    made = case.unshaped()
    made.take_shapes(Given([], **{n: tuple(v) if isinstance(v, list) else v for n, v in case.shapes.items()}))

    def plain(value: Any) -> bool:
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return value is None or type(value) in (bool, int, float, str)

    assert {name: value for name, value in made.hparams.items() if not plain(value)} == {}


@every_case
def test_its_defaults_build_for_its_data(case: Case) -> None:
    arguments: Any = case.shapes
    model = case.model(**arguments)
    assert case.loss(model, case.batch(4)).isfinite()


@every_case
@pytest.mark.parametrize(
    ("name", "typo", "meant"),
    [
        ("norm", "bach", "batch"),
        ("activation", "tanhh", "tanh"),
        ("optimizer", "adagard", "adagrad"),
        ("lr_schedule", "exponental", "exponential"),
    ],
)
def test_an_unknown_name_is_told_with_the_names_there_are(case: Case, name: str, typo: str, meant: str) -> None:
    said = rf"{name} must be one of .*, but got '{typo}'\. Did you mean '{meant}'\?"
    if name == "activation" and len(case.activations) == 1:
        said = rf"{name} must be '{meant}' for cell .*, but got '{typo}'"
    with pytest.raises(ValueError, match=said):
        case.unshaped(**{name: typo})


def test_a_name_that_resembles_none_is_told_without_a_guess() -> None:
    with pytest.raises(ValueError, match=r"but got 'zzz'\.$"):
        MLP(norm="zzz")


@every_case
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_units", 0),
        ("depth", -1),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("norm_groups", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1e-3),
        ("lr_decay", 1.5),
        ("lr_decay", 0.0),
        ("lr_step", 0),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.5),
        ("adam_eps", 0.0),
        ("penalty", -1.0),
        ("penalty_p", 0.9),
        ("clip_norm", 0.0),
    ],
)
def test_a_number_outside_its_range_is_told_by_name_when_the_model_is_made(case: Case, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .*, but got {value}"):
        case.unshaped(**{name: value})


@pytest.mark.parametrize(
    ("case", "name", "value"),
    [
        ("LeNet", "channels", 0),
        ("LeNet", "depth", 0),
        ("ResNet", "stages", 0),
        ("ResNet", "depth", 0),
        ("DenseNet", "blocks", 0),
        ("DenseNet", "depth", 0),
        ("RNN", "depth", 0),
        ("RNN", "embedding_units", -1),
        ("MLP", "maxout_pieces", 1),
    ],
)
def test_a_number_of_its_own_outside_its_range_is_told_by_name(case: str, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be at least \d, but got {value}"):
        CASES[case].unshaped(**{name: value})


@every_case
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_and_decay_can_be_chosen(case: Case, optimizer: str) -> None:
    for form in DECAYS:
        configured = case.make(optimizer=optimizer, lr_schedule=form).configure_optimizers()
        descent = configured if form == "none" else configured[0][0]
        assert isinstance(descent, torch.optim.Optimizer)
        assert type(descent).__name__.lower() == optimizer


# ---- learning ------------------------------------------------------------------------------------------------------


def learnt(case: Case, steps: int, **arguments: Any) -> float:
    """The loss after so many steps on one batch."""
    torch.manual_seed(0)
    model, batch = case.make(dropout=0.0, lr_schedule="none", weight_decay=0.0, **arguments), case.batch(12)
    descent = model.configure_optimizers()
    for _ in range(steps):
        descent.zero_grad()
        case.loss(model, batch).backward()
        descent.step()
    return case.loss(model, batch).item()


@every_case
def test_it_learns_a_batch_by_heart(case: Case) -> None:
    assert learnt(case, 0) > 0.5
    extra = {"hidden_units": 64} if issubclass(case.model, LanguageModel) else {}
    assert learnt(case, 150, optimizer="adam", learning_rate=0.02, **extra) < 0.1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_learns_a_batch_by_heart_with_every_optimiser(optimizer: str) -> None:
    rate = 0.1 if optimizer == "sgd" else 0.02
    assert learnt(CASES["MLP"], 100, optimizer=optimizer, learning_rate=rate) < 0.1


@every_case
def test_every_parameter_takes_part(case: Case) -> None:
    torch.manual_seed(0)
    model = case.make(dropout=0.0).train()
    case.loss(model, case.batch(12)).backward()
    dead = {
        name: None if p.grad is None else p.grad.norm().item()
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or p.grad.norm() < 1e-6)
    }
    assert dead == {}


COMBINATIONS = [
    pytest.param(case, norm, activation, id=f"{name}-{norm}-{activation}")
    for name, case in CASES.items()
    for norm in case.norms
    for activation in case.activations
]


@pytest.mark.parametrize(("case", "norm", "activation"), COMBINATIONS)
def test_every_activation_goes_with_every_normaliser(case: Case, norm: str, activation: str) -> None:
    torch.manual_seed(0)
    model = case.make(norm=norm, activation=activation).train()
    batch = case.batch(6)
    loss = case.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    gradients = [p.grad for p in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients if gradient is not None) > 0
    # at inference a sample's output does not depend on the others
    x, _ = batch
    together = model.eval()(x)
    alone = torch.cat([model(sample[None]) for sample in x])
    assert together.isfinite().all()
    assert torch.allclose(alone, together, atol=1e-4 * together.abs().max().item())


@every_case
def test_its_outputs_have_the_documented_shape(case: Case) -> None:
    x, y = case.batch(5)
    shape = case.make().eval()(x).shape
    if issubclass(case.model, LanguageModel):
        assert shape == (5, 8, 7)
    else:
        assert shape == ((5,) if "target_std" in case.shapes else (5, 10))
    assert shape[: y.ndim] == y.shape


# ---- shapes --------------------------------------------------------------------------------------------------------


@every_case
def test_it_takes_its_shapes_from_the_data_and_keeps_them(case: Case) -> None:
    model = case.unshaped()
    assert model.net is None
    fitted(model, case.data())
    assert {name: model.hparams[name] for name in case.shapes} == case.shapes
    assert model(case.batch(2)[0]).isfinite().all()


@every_case
def test_what_was_given_outranks_the_data(case: Case) -> None:
    name = case.model.SHAPES[-1]
    given = case.shapes[name] + 3
    model = case.unshaped(**{name: given})
    model.take_shapes(Given([], **case.shapes))
    assert {n: model.hparams[n] for n in case.shapes} == {**case.shapes, name: given}


@every_case
def test_a_network_once_built_keeps_its_shapes(case: Case) -> None:
    model = case.make()
    net, before = model.net, dict(model.hparams)
    model.adopt(**dict.fromkeys(case.shapes, 3))
    model.take_shapes(Given([]))
    assert model.net is net
    assert dict(model.hparams) == before


@every_case
def test_without_shapes_it_says_what_it_needs(case: Case) -> None:
    needed = " and ".join(case.model.SHAPES)
    with pytest.raises(RuntimeError, match=f"give {needed}"):
        case.unshaped()(case.batch(2)[0])
    data = case.data()
    missing = case.model.SHAPES[-1]
    delattr(data, missing)
    said = rf"{case.model.__name__} needs {needed}, and the data module Given has no {missing}\."
    with pytest.raises(ValueError, match=said):
        fitted(case.unshaped(), data)


# ---- keeping -------------------------------------------------------------------------------------------------------


def outputs(model: L.LightningModule, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.eval()(x)
    return out


@every_case
def test_a_checkpoint_loads_weights_only_and_without_the_data(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = case.unshaped(weight_decay=0.01), tmp_path / "kept.ckpt"
    trainer = fitted(model, case.data())
    trainer.save_checkpoint(path)
    kept = torch.load(path, weights_only=True)
    assert kept["hyper_parameters"]["weight_decay"] == 0.01
    loaded = case.model.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    x, _ = case.batch(5)
    assert torch.equal(outputs(loaded, x), outputs(model, x))
    assert dict(loaded.hparams) == dict(model.hparams)


@every_case
def test_it_resumes_from_a_checkpoint_as_if_it_had_not_stopped(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data, path = case.data(), tmp_path / "half.ckpt"
    start = case.make(dropout=0.0)
    whole, half, resumed = copy.deepcopy(start), copy.deepcopy(start), case.make(dropout=0.0)
    fitted(whole, data, max_epochs=2)
    fitted(half, data, max_epochs=1).save_checkpoint(path)
    trainer = lean(max_epochs=2)
    trainer.fit(resumed, datamodule=data, ckpt_path=path, weights_only=True)
    assert trainer.current_epoch == 2
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@every_case
def test_the_same_seed_gives_the_same_numbers_bit_by_bit(case: Case) -> None:
    data = case.data()

    def trained(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(seed)
        model = case.unshaped(dropout=0.2)
        trainer = fitted(model, data, max_epochs=2)
        return model.state_dict(), dict(trainer.callback_metrics)

    (weights, metrics), (again, metrics_again), (others, _) = trained(1), trained(1), trained(2)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert all(torch.equal(metrics[name], metrics_again[name]) for name in metrics)
    assert not all(torch.equal(weights[name], others[name]) for name in weights)


@every_case
@pytest.mark.parametrize("trained", [False, True])
def test_it_can_be_copied_and_pickled(case: Case, trained: bool) -> None:
    torch.manual_seed(0)
    model = case.make()
    if trained:
        fitted(model, case.data())
    x, _ = case.batch(5)
    expected = outputs(model, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(outputs(other, x), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert torch.equal(outputs(model, x), expected)


@every_case
def test_it_is_exported_for_batches_of_any_size(case: Case) -> None:
    torch.manual_seed(0)
    model = case.make().eval()
    x, _ = case.batch(4)
    with warnings.catch_warnings():
        # torch's recurrent layers refresh a list of their weights when they are run.
        warnings.filterwarnings("ignore", message="The tensor attributes .*_flat_weights")
        batch = torch.export.Dim("batch", min=1)
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    kept = io.BytesIO()
    torch.export.save(exported, kept)
    kept.seek(0)
    program = torch.export.load(kept).module()
    for size in (1, 4, 9):
        x, _ = case.batch(size)
        assert torch.allclose(program(x), outputs(model, x), atol=1e-5)


# ---- a network of one's own ----------------------------------------------------------------------------------------


class Wide(Classifier):
    """Takes two hyperparameters beside its shapes, and leaves out all others."""

    def __init__(
        self,
        hidden_units: int = 32,
        learning_rate: float = 0.1,
        input_shape: list[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.prepare()

    def build(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        units = self.hparams["hidden_units"]
        return nn.Sequential(nn.Linear(input_shape[0], units), nn.ReLU(), nn.Linear(units, num_classes))


def test_a_network_of_one_s_own_may_leave_shared_hyperparameters_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = CASES["MLP"]
    model, path = Wide(learning_rate=0.3), tmp_path / "own.ckpt"
    before = fitted(model, case.data(), max_epochs=1)
    assert before.optimizers[0].param_groups[0]["lr"] == 0.3
    after = fitted(model, case.data(), max_epochs=5)
    assert after.callback_metrics["train_loss"] < before.callback_metrics["train_loss"]
    after.save_checkpoint(path)
    x, _ = case.batch(5)
    loaded = Wide.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert torch.equal(outputs(loaded, x), outputs(model, x))
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        Wide(learning_rate=0.0)


def test_left_out_hyperparameters_neither_decay_nor_penalise_nor_clip() -> None:
    model = Wide(input_shape=[12], num_classes=10)
    descent = model.configure_optimizers()
    assert isinstance(descent, torch.optim.SGD)  # without a scheduler
    assert {group["weight_decay"] for group in descent.param_groups} == {0.0}
    loss = torch.tensor(2.0)
    assert model.penalised(loss) is loss
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    model.trainer = lean()
    model.configure_gradient_clipping(descent)
    assert all((p.grad == 100).all() for p in model.parameters() if p.grad is not None)
