"""One call of all slices at once gives each what it would get alone, or says why it cannot."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from tuner.cohort.errors import NotFusable
from tuner.cohort.recording import Recordings
from tuner.cohort.rows import Rows
from tuner.cohort.step import Batches, Outcome, Step
from tuner.cohort.template import Template
from tuner.cohort.trace import Trace
from tuner.models import MLP, DenseNet, LeNet, MLPRegressor, ResNet, RNNLanguageModel
from tuner.models.network import Network

K = 3
IMAGE = {"input_shape": [1, 8, 8], "num_classes": 4}
VECTOR = {"input_shape": [6], "num_classes": 4}

NETWORKS: dict[str, Callable[..., Network]] = {
    **{
        f"mlp {norm} {activation}": lambda norm=norm, activation=activation, **k: MLP(
            hidden_units=8, norm=norm, norm_groups=2, activation=activation, dropout=0.0, **VECTOR, **k
        )
        for norm in ("batch", "layer", "group", "none")
        for activation in ("relu", "maxout")
    },
    "mlp prelu": lambda **k: MLP(hidden_units=8, activation="prelu", dropout=0.0, **VECTOR, **k),
    "regressor": lambda **k: MLPRegressor(
        hidden_units=8, dropout=0.0, input_shape=[6], target_mean=1.0, target_std=2.0, **k
    ),
    **{
        f"lenet {norm}": lambda norm=norm, **k: LeNet(channels=2, hidden_units=4, norm=norm, dropout=0.0, **IMAGE, **k)
        for norm in ("batch", "layer", "group", "instance", "none")
    },
    "resnet": lambda **k: ResNet(hidden_units=4, stages=2, dropout=0.0, **IMAGE, **k),
    "densenet": lambda **k: DenseNet(hidden_units=4, depth=2, blocks=2, dropout=0.0, **IMAGE, **k),
    **{
        f"language {cell}": lambda cell=cell, **k: RNNLanguageModel(
            hidden_units=5, depth=2, cell=cell, vocab_size=7, dropout=0.0, **k
        )
        for cell in ("rnn", "gru", "lstm")
    },
    "language layer": lambda **k: RNNLanguageModel(
        hidden_units=4, norm="layer", embedding_units=3, vocab_size=7, dropout=0.0, **k
    ),
}  # fmt: skip


def cohort(modules: list[Any]) -> tuple[Rows, Step]:
    """A training step of modules, and where their parameters are."""
    names = [[name for name, p in modules[0].named_parameters() if p.requires_grad]]
    rows = Rows(modules, names)
    return rows, Step(Template(modules), rows, "training_step", trains=True, recordings=Recordings())


def stacked(batches: list[Any]) -> Batches:
    """A batch for each slice."""
    leaves = [pytree.tree_leaves(batch) for batch in batches]
    return Batches(
        tuple(torch.stack(parts) for parts in zip(*leaves, strict=True)), False, pytree.tree_structure(batches[0])
    )


def alone(module: Any, batch: Any) -> tuple[Tensor, Tensor, dict[str, float]]:
    """The gradient, the loss and what is logged, of one module by itself."""
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: float(value.detach())})
    module.zero_grad()
    loss = module.training_step(batch, 0)
    loss = loss["loss"] if isinstance(loss, dict) else loss
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])
    return gradient, loss.detach(), logged


def batch_for(network: Network) -> Any:
    """A batch of random inputs and labels."""
    h = network.hparams
    if "vocab_size" in h:
        return torch.randint(7, (4, 6)), torch.randint(7, (4, 6))
    x = torch.randn(10, *h["input_shape"], dtype=torch.float64)
    return x, torch.randn(10) if "target_mean" in h else torch.randint(4, (10,))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_gets_the_gradients_buffers_and_metrics_that_it_gets_alone(name: str) -> None:
    torch.manual_seed(0)
    penalised = [NETWORKS[name](penalty=1e-3 * k, penalty_p=1.0 + k / 2).double() for k in range(1, K + 1)]
    singles = copy.deepcopy(penalised)
    rows, step = cohort(penalised)
    for _ in range(4):  # the first as it is, later ones from a recording
        batches = [batch_for(single) for single in singles]
        out = step(stacked(batches))
        assert out.gradients is not None
        assert out.loss is not None
        for k, single in enumerate(singles):
            gradient, loss, logged = alone(single, batches[k])
            assert torch.allclose(out.gradients[k], gradient, rtol=0, atol=1e-12)
            assert torch.allclose(out.loss[k], loss, rtol=0, atol=1e-12)
            assert {call.name: float(value[k]) for call, value in out.logged} == pytest.approx(logged, abs=1e-12)
            for (_, ours), (_, theirs) in zip(rows.modules[k].named_buffers(), single.named_buffers(), strict=True):
                assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_a_state_is_carried_from_batch_to_batch_for_each_slice() -> None:
    torch.manual_seed(0)
    models = [NETWORKS["language gru"]().double() for _ in range(K)]
    rows, step = cohort(models)
    del rows
    step(stacked([batch_for(m) for m in models]))
    carried = step.state["", "_carried"]
    assert [tuple(s.shape) for s in carried] == [(K, 1, 4, 5)] * 2
    assert not torch.equal(carried[0][0], carried[0][1])


class Plain(L.LightningModule):
    """A linear regression, whose step the tests replace."""

    def __init__(self, scale: float = 1.0, word: str = "a", log_it: bool = True) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(3, 1)
        self.scale = scale
        self.word = word
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.mse_loss(self.layer(x).squeeze(1), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)


def plain_batch() -> Any:
    return torch.randn(5, 3), torch.randn(5)


def called(step: Callable[[Any, Any, int], Any], *modules: Plain, times: int = 1) -> Outcome:
    """Call a training step of so many modules of a class that has it."""
    owner = type("Own", (Plain,), {"training_step": step})
    made = []
    for module in modules or (Plain(), Plain(), Plain()):
        module.__class__ = owner
        made.append(module)
    _, together = cohort(made)
    for _ in range(times):
        out = together(stacked([plain_batch() for _ in made]))
    return out


def test_a_buffer_that_a_step_assigns_anew_is_not_lost() -> None:
    def step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.seen = self.seen + loss.detach()
        return loss

    modules = [Plain(), Plain()]
    batches = [[plain_batch(), plain_batch()] for _ in range(4)]
    expected = [sum(float(modules[k].loss(pair[k]).detach()) for pair in batches) for k in range(2)]
    owner = type("Own", (Plain,), {"training_step": step})
    for module in modules:
        module.__class__ = owner
    rows, together = cohort(modules)
    for pair in batches:
        together(stacked(pair))
    assert [float(m.seen) for m in rows.modules] == pytest.approx(expected, rel=1e-5)


def test_numbers_that_differ_are_each_slices_own_wherever_they_are_kept() -> None:
    def step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch) * self.scale * self.hparams.scale * self.hparams["scale"] * self.hparams.get("scale")

    torch.manual_seed(0)
    modules = [Plain(1.0), Plain(2.0)]
    modules[1].load_state_dict(modules[0].state_dict())
    torch.manual_seed(1)
    batch = plain_batch()
    owner = type("Own", (Plain,), {"training_step": step})
    for module in modules:
        module.__class__ = owner
    _, together = cohort(modules)
    out = together(stacked([batch, batch]))
    assert out.loss is not None
    assert float(out.loss[1] / out.loss[0]) == pytest.approx(16.0)


def reads_epoch(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) * (1 + self.current_epoch)


def reads_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) * (1 + self.global_step)


def reads_trainer(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) * (1 if hasattr(self.trainer, "datamodule") else 2)


def reads_number(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) * (2 if batch_idx % 2 else 1)


def counts(self: Any, batch: Any, batch_idx: int) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return self.loss(batch)


def asks_a_value(self: Any, batch: Any, batch_idx: int) -> Tensor:
    loss = self.loss(batch)
    return loss if loss.item() > 0 else loss * 2


def branches(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) if self.scale > 1 else self.loss(batch) * 2


def reads_word(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) if self.word == "a" else self.loss(batch) * 2


def reads_hyperparameter(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) if self.hparams.word == "a" else self.loss(batch) * 2


def returns_nothing(self: Any, batch: Any, batch_idx: int) -> None:
    return None


def own_list(self: Any, batch: Any, batch_idx: int) -> Tensor:
    self.words = [*getattr(self, "words", []), "one more"]
    return self.loss(batch)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (reads_epoch, r"reads self.trainer.current_epoch"),
        (reads_step, r"reads self.trainer.global_step"),
        (reads_trainer, r"reads self.trainer.datamodule"),
        (reads_number, "looks at batch_idx"),
        (counts, "changes self.calls"),
        (own_list, "changes self.words"),
        (asks_a_value, "all slices at once"),
        (branches, "all slices at once"),
        (reads_word, "reads self.word, in which the trials differ"),
        (reads_hyperparameter, "reads the hyperparameter word, in which the trials differ"),
        (returns_nothing, "returns no loss"),
    ],
)
def test_what_would_be_wrong_without_anybody_noticing_is_refused(step: Any, reason: str) -> None:
    with pytest.raises(NotFusable, match=reason):
        called(step, Plain(1.0, "a"), Plain(2.0, "b"))


def test_what_differs_and_is_not_read_does_not_matter() -> None:
    def step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    assert called(step, Plain(1.0, "a", True), Plain(2.0, "b", False)).loss is not None


def test_an_attribute_that_was_read_is_named_so_that_trials_can_agree_on_it() -> None:
    with pytest.raises(NotFusable) as told:
        called(reads_word, Plain(word="a"), Plain(word="b"))
    assert told.value.attribute == "word"


def test_dropout_draws_for_each_slice_and_at_its_own_rate() -> None:
    class Dropping(Plain):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.drop = nn.Dropout(rate)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            ones = self.drop(torch.ones(4000))
            self.log("kept", (ones > 0).float().mean())
            self.log("mean", ones.mean())
            return self.loss(batch)

    torch.manual_seed(0)
    _, step = cohort([Dropping(rate) for rate in (0.0, 0.2, 0.5, 0.5)])
    for _ in range(3):
        out = step(stacked([plain_batch() for _ in range(4)]))
    logged = {call.name: value for call, value in out.logged}
    assert isinstance(logged["kept"], Tensor)
    assert logged["kept"].tolist() == pytest.approx([1.0, 0.8, 0.5, 0.5], abs=0.04)
    assert logged["mean"].tolist() == pytest.approx([1.0, 1.0, 1.0, 1.0], abs=0.06)
    assert logged["kept"][2] != logged["kept"][3]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_torchs_own_recurrent_layers_are_unrolled(layer: Any, bidirectional: bool) -> None:
    class Reads(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = layer(3, 4, num_layers=2, bidirectional=bidirectional, batch_first=True)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            out, state = self.net(batch[0])
            state = state if isinstance(state, Tensor) else state[0] + state[1]
            return out.square().mean() + state.sum()

    torch.manual_seed(0)
    modules = [Reads().double() for _ in range(2)]
    singles = copy.deepcopy(modules)
    _, step = cohort(modules)
    batches = [(torch.randn(2, 5, 3, dtype=torch.float64),) for _ in range(2)]
    out = step(stacked(batches))
    assert out.gradients is not None
    for k in range(2):
        assert torch.allclose(out.gradients[k], alone(singles[k], batches[k])[0], rtol=0, atol=1e-12)


def test_nan_stays_in_its_slice() -> None:
    torch.manual_seed(0)
    modules = [NETWORKS["mlp batch relu"]().double() for _ in range(K)]
    singles = copy.deepcopy(modules)
    rows, step = cohort(modules)
    rows.trained[1] = torch.nan
    batches = [batch_for(m) for m in modules]
    out = step(stacked(batches))
    assert out.gradients is not None
    assert bool(out.gradients[1].isnan().any())
    for k in (0, 2):
        assert torch.allclose(out.gradients[k], alone(singles[k], batches[k])[0], rtol=0, atol=1e-12)


def host_random(self: Any, batch: Any, batch_idx: int) -> Tensor:
    return self.loss(batch) * (random.random() + float(np.random.rand()))  # noqa: S311 - nothing secret


def test_randomness_of_the_host_is_never_recorded() -> None:
    modules = [Plain(), Plain()]
    owner = type("Own", (Plain,), {"training_step": host_random})
    for module in modules:
        module.__class__ = owner
    _, step = cohort(modules)
    step.recordings.seconds = 0.0  # record at the second call
    batches = stacked([plain_batch(), plain_batch()])
    losses = set()
    for _ in range(5):
        out = step(batches)
        assert out.loss is not None
        losses.add(float(out.loss[0]))
    assert len(losses) == 5


@pytest.mark.parametrize("wrong", ["relu", "neg"])
def test_a_recording_that_does_something_else_than_the_step_is_never_replayed(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(made: Trace) -> None:
        for node in made.graph.nodes:
            if node.target is torch.ops.aten.relu.default:
                node.target = getattr(torch.ops.aten, wrong).default

    monkeypatch.setattr("tuner.cohort.recording.write_in_place", spoil)
    modules = [NETWORKS["mlp none relu"]() for _ in range(2)]
    _, step = cohort(modules)
    batches = stacked([(torch.randn(5, 6), torch.randint(4, (5,))) for _ in modules])
    step(batches)
    if wrong == "relu":
        assert step(batches).gradients is not None
        assert step(batches).replayed
    else:
        with pytest.raises(NotFusable, match="its recording does not do what it did"):
            step(batches)


def test_a_step_is_recorded_once_calling_it_has_cost_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        nonlocal calls
        calls += 1
        return self.loss(batch)

    modules = [Plain(), Plain()]
    owner = type("Own", (Plain,), {"training_step": step})
    for module in modules:
        module.__class__ = owner
    _, together = cohort(modules)
    together.recordings.seconds = 1e9
    for _ in range(5):
        together(stacked([plain_batch(), plain_batch()]))
    assert calls == 5
    together.recordings.seconds = 0.0
    for _ in range(5):
        together(stacked([plain_batch(), plain_batch()]))
    assert calls == 7  # recorded twice, to compare


def test_the_modules_are_seen_through_the_rows_and_given_back_whole() -> None:
    torch.manual_seed(0)
    modules = [NETWORKS["lenet batch"]() for _ in range(4)]
    states = [copy.deepcopy(m.state_dict()) for m in modules]
    rows = Rows(modules, [[name for name, _ in modules[0].named_parameters()]])
    for module, state in zip(modules, states, strict=True):
        assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())
    rows.keep([3, 1])
    rows.trained.zero_()
    assert all(not p.any() for k in (1, 3) for p in modules[k].parameters())
    assert all(torch.equal(modules[0].state_dict()[name], tensor) for name, tensor in states[0].items())
    rows.put(0, modules[2])
    assert all(torch.equal(rows.modules[0].state_dict()[name], tensor) for name, tensor in states[2].items())
    assert rows.modules[1] is modules[1]
