"""Gradient norms and pre-activations of every layer, as a callback logs them in a real fit (documented.md §4, §9)."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from networks import Batch, Given, every_case, fitted, lean, of_type, vectors
from torch import nn
from torch.nn import functional as F

from tuner.models import MLP, LayerStatistics, LeNet, Network, ResNet, RNNLanguageModel

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES: dict[str, Any] = {"input_shape": [12], "num_classes": 10}
STILL: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e-30, "weight_decay": 0.0}  # so that steps agree


def mlp(**arguments: Any) -> MLP:
    torch.manual_seed(0)
    return MLP(**{"hidden_units": 8, "depth": 2, "norm": "none", "dropout": 0.0, **STILL, **SHAPES, **arguments})


def statistics(model: Network, batches: list[Batch], every: int = 1, **trainer: Any) -> dict[str, float]:
    """What the callback logs for one epoch of these batches."""
    made = fitted(model, Given(batches), callbacks=[LayerStatistics(every)], **trainer)
    logged = {name: value.item() for name, value in made.callback_metrics.items()}
    return {name: value for name, value in logged.items() if "/" in name}


def gradient_norms(model: Network, x: Any, y: Any) -> dict[str, float]:
    """The norm of every layer's gradient for one batch, by backpropagation alone."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
    squares: dict[str, float] = {}
    for name, gradient in zip(names, gradients, strict=True):
        layer = name.rpartition(".")[0]
        squares[layer] = squares.get(layer, 0.0) + gradient.square().sum().item()
    return {f"grad_norm/{layer}": square**0.5 for layer, square in squares.items()}


def preactivations(model: Network, x: Any) -> dict[str, float]:
    """Mean and deviation of what reaches the activations of the MLP above: the output of each linear layer."""
    values: dict[str, float] = {}
    first, second, _ = of_type(model, nn.Linear)
    z = first(x)
    for name, at in (("net.3", z), ("net.6", second(F.relu(z)))):
        mean = at.mean().item()
        values |= {f"preact_mean/{name}": mean, f"preact_std/{name}": ((at - mean) ** 2).mean().sqrt().item()}
    return values


def test_gradient_norms_are_those_of_each_layer_before_clipping() -> None:
    batch = vectors(16)
    logged = statistics(mlp(clip_norm=1e-3), [batch], gradient_clip_val=1e-3)
    norms = {name: value for name, value in logged.items() if name.startswith("grad_norm/")}
    by_hand = gradient_norms(mlp(), *batch)
    assert by_hand.keys() == {"grad_norm/net.1", "grad_norm/net.4", "grad_norm/net.7"}
    assert norms == pytest.approx(by_hand, rel=1e-5)
    assert min(by_hand.values()) > 0.01


def test_preactivations_are_mean_and_deviation_of_what_reaches_the_activations() -> None:
    x, y = vectors(16)
    logged = statistics(mlp(), [(x, y)])
    preacts = {name: value for name, value in logged.items() if name.startswith("preact")}
    assert preacts == pytest.approx(preactivations(mlp(), x), rel=1e-5)


def test_what_is_logged_is_the_mean_over_the_steps_of_the_epoch() -> None:
    batches = [vectors(16), (3 + vectors(16)[0], torch.zeros(16, dtype=torch.int64))]
    logged = statistics(mlp(), batches)
    first, second = (gradient_norms(mlp(), *batch) | preactivations(mlp(), batch[0]) for batch in batches)
    assert logged == pytest.approx({name: (first[name] + second[name]) / 2 for name in first}, rel=1e-5)


def test_only_every_such_step_is_looked_at() -> None:
    batches = [vectors(16) for _ in range(5)]
    logged = statistics(mlp(), batches, every=3)  # steps 0 and 3
    first, second = (gradient_norms(mlp(), *batches[i]) | preactivations(mlp(), batches[i][0]) for i in (0, 3))
    assert logged == pytest.approx({name: (first[name] + second[name]) / 2 for name in first}, rel=1e-5)


def test_each_epoch_is_told_by_itself() -> None:
    batches = [vectors(16)]
    early = statistics(mlp(learning_rate=0.5), batches)
    late = statistics(mlp(learning_rate=0.5), batches, max_epochs=20)
    trained = mlp(learning_rate=0.5)
    fitted(trained, Given(batches), max_epochs=19)
    assert late == pytest.approx(
        gradient_norms(trained, *batches[0]) | preactivations(trained, batches[0][0]), rel=1e-3
    )
    assert late != pytest.approx(early, rel=1e-2)


def test_the_steps_of_accumulated_gradients_are_all_looked_at() -> None:
    batches = [vectors(16) for _ in range(4)]
    logged = statistics(mlp(), batches, accumulate_grad_batches=2)
    assert {name for name in logged if name.startswith("grad_norm/")} == gradient_norms(mlp(), *batches[0]).keys()


def test_a_look_at_every_other_step_meets_accumulated_gradients_too() -> None:
    logged = statistics(mlp(), [vectors(16) for _ in range(4)], every=2, accumulate_grad_batches=2)
    assert any(name.startswith("grad_norm/") for name in logged)


def test_a_validation_amid_the_epoch_is_not_looked_at() -> None:
    batches = [vectors(16) for _ in range(4)]
    other = [(9 + x, y) for x, y in batches]
    model = mlp()
    made = fitted(model, Given(batches, other), callbacks=[LayerStatistics()], val_check_interval=2)
    logged = {name: value.item() for name, value in made.callback_metrics.items() if "/" in name}
    assert logged == pytest.approx(statistics(mlp(), batches), rel=1e-6)


def test_a_callback_that_comes_after_it_sees_the_values_at_the_end_of_each_epoch() -> None:
    seen: list[float] = []

    class After(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen.append(trainer.callback_metrics["grad_norm/net.1"].item())

    model, batch = mlp(learning_rate=0.1), vectors(16)
    expected = gradient_norms(mlp(), *batch)["grad_norm/net.1"]
    fitted(model, Given([batch]), callbacks=[LayerStatistics(), After()], max_epochs=3)
    assert seen[0] == pytest.approx(expected, rel=1e-5)
    assert len(set(seen)) == 3


# ---- every network -------------------------------------------------------------------------------------------------


@every_case
def test_every_network_tells_gradient_norms_of_all_layers_and_some_preactivations(case: Any) -> None:
    torch.manual_seed(0)
    model = case.make()
    logged = statistics(model, [case.batch(12)])
    kinds = {name.partition("/")[0] for name in logged}
    assert kinds == {"grad_norm", "preact_mean", "preact_std"}
    with_parameters = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert {name.partition("/")[2] for name in logged if name.startswith("grad_norm/")} == with_parameters


def test_the_names_are_the_modules_paths() -> None:
    torch.manual_seed(0)
    images = (torch.randn(8, 1, 8, 8), torch.arange(8) % 3)
    made = LeNet(channels=2, depth=1, hidden_units=4, dropout=0.0, input_shape=[1, 8, 8], num_classes=3)
    logged = statistics(made, [images])
    # conv, norm, relu, pool, flatten, linear, norm, relu, linear
    assert {name for name in logged if name.startswith("grad_norm/")} == {f"grad_norm/net.{i}" for i in (0, 1, 5, 6, 8)}
    assert {name for name in logged if name.startswith("preact_mean/")} == {"preact_mean/net.2", "preact_mean/net.7"}
    net = ResNet(hidden_units=2, stages=1, input_shape=[1, 8, 8], num_classes=3)
    assert {"preact_std/net.3.activation", "grad_norm/net.3.branch.0"} <= statistics(net, [images]).keys()


def test_after_batch_normalisation_preactivations_have_mean_0_and_deviation_1() -> None:
    logged = statistics(mlp(norm="batch", depth=1), [vectors(16)])
    assert logged["preact_mean/net.3"] == pytest.approx(0, abs=1e-5)
    assert logged["preact_std/net.3"] == pytest.approx(1, abs=1e-3)


def test_where_a_kernel_hides_the_activations_the_affine_maps_are_looked_at() -> None:
    torch.manual_seed(0)
    model = RNNLanguageModel(hidden_units=8, vocab_size=5, **STILL)
    symbols = torch.randint(5, (3, 7))
    x, y = symbols[:, :-1], symbols[:, 1:]
    logits = model(x)
    logged = statistics(model, [(x, y)])
    assert logged["preact_mean/net.output"] == pytest.approx(logits.mean().item(), rel=1e-4)
    assert logged["preact_std/net.output"] == pytest.approx(logits.std(correction=0).item(), rel=1e-4)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_cell_that_is_unrolled_tells_preactivations_as_well(cell: str) -> None:
    torch.manual_seed(0)
    model = RNNLanguageModel(hidden_units=8, cell=cell, norm="layer", vocab_size=5)
    symbols = torch.randint(5, (3, 7))
    logged = statistics(model, [(symbols[:, :-1], symbols[:, 1:])])
    assert any(name.startswith("preact_std/") for name in logged)


def test_gradient_norms_show_that_sigmoids_vanish_and_rectifiers_do_not() -> None:
    ratios = {}
    for name in ("sigmoid", "relu"):
        torch.manual_seed(0)
        model = MLP(hidden_units=32, depth=8, activation=name, norm="none", dropout=0.0, **SHAPES)
        logged = statistics(model, [vectors(64)])
        linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
        ratios[name] = logged[f"grad_norm/{linears[0]}"] / logged[f"grad_norm/{linears[-2]}"]
    assert ratios["sigmoid"] < 1e-3
    assert ratios["relu"] > 0.05


# ---- on and off ----------------------------------------------------------------------------------------------------


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Hooked(L.Callback):
    """How many hooks there are amid training; raises there, if told so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.count = error, -1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.count = hooks(pl_module)
        if self.error is not None:
            raise self.error


def test_what_is_not_switched_on_is_not_attached() -> None:
    model, watch = mlp(), Hooked()
    trainer = fitted(model, Given([vectors(16)]), callbacks=[watch])
    assert watch.count == 0
    assert not any("/" in name for name in trainer.callback_metrics)


def test_the_hooks_are_gone_after_training() -> None:
    model, watch = mlp(), Hooked()
    fitted(model, Given([vectors(16)]), callbacks=[LayerStatistics(), watch])
    assert watch.count == 2  # the two activations
    assert hooks(model) == 0


@pytest.mark.parametrize("error", [RuntimeError("amid training"), torch.OutOfMemoryError("no more")])
def test_the_hooks_are_gone_after_an_exception(error: Exception) -> None:
    model, watch = mlp(), Hooked(error)
    with pytest.raises(type(error)):
        fitted(model, Given([vectors(16)]), callbacks=[LayerStatistics(), watch])
    assert watch.count == 2
    assert hooks(model) == 0


def test_after_an_exception_the_next_fit_starts_afresh() -> None:
    batches, callback = [vectors(16), vectors(16)], LayerStatistics()
    with pytest.raises(RuntimeError):
        fitted(mlp(), Given([(50 + x, y) for x, y in batches]), callbacks=[callback, Hooked(RuntimeError())])
    trainer = lean(callbacks=[callback])
    trainer.fit(mlp(), datamodule=Given(batches))
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if "/" in name}
    assert logged == pytest.approx(statistics(mlp(), batches), rel=1e-6)


def test_training_is_the_same_with_it_and_without() -> None:
    batches = [vectors(16) for _ in range(3)]
    with_it, without = mlp(learning_rate=0.1, dropout=0.3), mlp(learning_rate=0.1, dropout=0.3)
    for model, callbacks in ((with_it, [LayerStatistics()]), (without, [])):
        torch.manual_seed(1)
        fitted(model, Given(batches), callbacks=callbacks)
    assert all(torch.equal(a, b) for a, b in zip(with_it.parameters(), without.parameters(), strict=True))


def test_a_norm_that_is_not_finite_is_not_logged_and_does_not_stop_training() -> None:
    model = mlp()
    with torch.no_grad():
        of_type(model, nn.Linear)[-1].weight[0] = float("inf")
    logged = statistics(model, [vectors(16)])
    assert all(value == value and abs(value) != float("inf") for value in logged.values())
    assert {"preact_mean/net.3", "preact_mean/net.6"} <= logged.keys()


def test_every_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match="every must be at least 1, but got 0"):
        LayerStatistics(every=0)
