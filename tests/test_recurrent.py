"""Recurrent layers against loops written by hand, and the language model built of them (documented.md §7)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from networks import Given, fitted, lean, of_type
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models import RNNLanguageModel
from tuner.models.layers.recurrent import CELLS, Recurrent

pytestmark = pytest.mark.usefixtures("one_thread")

every_cell = pytest.mark.parametrize("cell", CELLS)
sigma = torch.sigmoid

# ---- the layer -----------------------------------------------------------------------------------------------------


def layer(cell: str, inputs: int = 3, units: int = 4, **arguments: Any) -> Recurrent:
    """A layer whose weights and biases all matter."""
    torch.manual_seed(1)
    made = Recurrent(cell, inputs, units, **arguments)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.6)
    return made.double()


def maps(made: Recurrent) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """W_x (inputs, units), W_h (units, units), b_x and b_h of each affine map, in torch's order."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w_x, w_h, b_x, b_h = (getattr(made.cell, name).detach().split(made.units) for name in names)
    return [(x.T, h.T, bx, bh) for x, h, bx, bh in zip(w_x, w_h, b_x, b_h, strict=True)]


def test_a_vanilla_step_comes_out_by_hand() -> None:
    made = Recurrent("rnn", 1, 1, activation="relu")
    for name, value in {"weight_ih_l0": 2.0, "weight_hh_l0": 0.5, "bias_ih_l0": -1.0, "bias_hh_l0": 0.0}.items():
        nn.init.constant_(getattr(made.cell, name), value)
    # 2·1 - 1 = 1; 2·2 + 0.5·1 - 1 = 3.5; 2·(-3) + 0.5·3.5 - 1 < 0; 2·1 + 0 - 1 = 1
    out, state = made(torch.tensor([[[1.0], [2], [-3], [1]]]))
    assert out.flatten().tolist() == [1.0, 3.5, 0.0, 1.0]
    assert state.flatten().tolist() == [1.0]
    # from a state of 4: 2·1 + 0.5·4 - 1 = 3
    assert made(torch.tensor([[[1.0]]]), torch.tensor([[[4.0]]]))[0].item() == 3.0


@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid", "leaky_relu"])
def test_a_vanilla_rnn_is_the_documented_recurrence(name: str) -> None:
    made, x = layer("rnn", activation=name), torch.randn(2, 5, 3).double()
    functions: dict[str, Any] = {"tanh": torch.tanh, "relu": F.relu, "sigmoid": sigma, "leaky_relu": F.leaky_relu}
    phi = functions[name]
    ((w_xh, w_hh, b_x, b_h),) = maps(made)
    h, outputs = torch.zeros(2, 4).double(), []
    for t in range(5):
        h = phi(x[:, t] @ w_xh + h @ w_hh + (b_x + b_h))
        outputs.append(h)
    out, state = made(x)
    assert torch.allclose(out, torch.stack(outputs, dim=1))
    assert torch.allclose(state, h[None])


def test_a_gru_is_the_documented_recurrence() -> None:
    made, x = layer("gru"), torch.randn(2, 5, 3).double()
    (w_xr, w_hr, b_xr, b_hr), (w_xz, w_hz, b_xz, b_hz), (w_xn, w_hn, b_xn, b_hn) = maps(made)
    h, outputs = torch.zeros(2, 4).double(), []
    for t in range(5):
        r = sigma(x[:, t] @ w_xr + b_xr + h @ w_hr + b_hr)
        z = sigma(x[:, t] @ w_xz + b_xz + h @ w_hz + b_hz)
        n = torch.tanh(x[:, t] @ w_xn + b_xn + r * (h @ w_hn + b_hn))
        h = (1 - z) * n + z * h
        outputs.append(h)
    assert torch.allclose(made(x)[0], torch.stack(outputs, dim=1))
    assert torch.allclose(made(x)[1], h[None])


def test_an_lstm_is_the_documented_recurrence() -> None:
    made, x = layer("lstm"), torch.randn(2, 5, 3).double()
    h = c = torch.zeros(2, 4).double()
    outputs = []
    for t in range(5):
        i, f, g, o = (x[:, t] @ w_x + b_x + h @ w_h + b_h for w_x, w_h, b_x, b_h in maps(made))
        c = sigma(f) * c + sigma(i) * torch.tanh(g)
        h = sigma(o) * torch.tanh(c)
        outputs.append(h)
    out, state = made(x)
    assert torch.allclose(out, torch.stack(outputs, dim=1))
    assert torch.allclose(state, torch.stack([h, c]))


@every_cell
def test_step_by_step_gives_the_kernel_s_values_and_gradients(cell: str) -> None:
    kernel, x = layer(cell), torch.randn(2, 6, 3).double()
    unrolled = layer(cell, unrolled=True)
    assert not kernel.unrolled
    start = torch.randn(kernel.states, 2, 4).double()
    results = []
    for made in (kernel, unrolled):
        begin, given = start.clone().requires_grad_(), x.clone().requires_grad_()
        out, state = made(given, begin)
        weighted = (out * torch.arange(out.numel()).view_as(out)).sum() + state.square().sum()
        gradients = torch.autograd.grad(weighted, [given, begin, *made.parameters()])
        results.append([out, state, *gradients])
    for by_kernel, by_step in zip(*results, strict=True):
        assert torch.allclose(by_kernel, by_step, atol=1e-9)


@every_cell
@pytest.mark.parametrize("unrolled", [False, True])
def test_two_halves_with_the_state_carried_are_one_pass(cell: str, unrolled: bool) -> None:
    made, x = layer(cell, unrolled=unrolled), torch.randn(2, 7, 3).double()
    whole, end = made(x)
    first, state = made(x[:, :3])
    second, last = made(x[:, 3:], state)
    assert torch.allclose(torch.cat([first, second], dim=1), whole)
    assert torch.allclose(last, end)
    assert not torch.allclose(made(x[:, 3:])[0], second, atol=1e-3)


def scaled(norm: Any, z: Tensor) -> Tensor:
    """Layer normalisation by hand, with γ and β of this layer."""
    centred = z - z.mean(dim=1, keepdim=True)
    normalised: Tensor = norm.weight * centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() + norm.bias
    return normalised


def test_a_normaliser_stands_between_the_affine_map_and_the_activation_in_every_step() -> None:
    made, x = layer("rnn", norm="layer"), torch.randn(2, 5, 3).double()
    norm: Any
    (norm,) = made.norms
    ((w_xh, w_hh, b_x, b_h),) = maps(made)
    h = torch.zeros(2, 4).double()
    for t in range(5):
        h = torch.tanh(scaled(norm, x[:, t] @ w_xh + h @ w_hh + b_x + b_h))
    assert torch.allclose(made(x)[0][:, -1], h)


def test_the_normalisers_of_a_gru_are_one_for_each_affine_map() -> None:
    made, x = layer("gru", norm="layer"), torch.randn(2, 5, 3).double()
    (w_xr, w_hr, b_xr, b_hr), (w_xz, w_hz, b_xz, b_hz), (w_xn, w_hn, b_xn, b_hn) = maps(made)
    norms: list[Any] = list(made.norms)
    on_r, on_z, on_n = (partial(scaled, norm) for norm in norms)
    h = torch.zeros(2, 4).double()
    for t in range(5):
        r = sigma(on_r(x[:, t] @ w_xr + b_xr + h @ w_hr + b_hr))
        z = sigma(on_z(x[:, t] @ w_xz + b_xz + h @ w_hz + b_hz))
        n = torch.tanh(on_n(x[:, t] @ w_xn + b_xn + r * (h @ w_hn + b_hn)))
        h = (1 - z) * n + z * h
    assert torch.allclose(made(x)[0][:, -1], h)


def test_the_normalisers_of_an_lstm_are_one_for_each_affine_map() -> None:
    made, x = layer("lstm", norm="layer"), torch.randn(2, 5, 3).double()
    h = c = torch.zeros(2, 4).double()
    for t in range(5):
        i, f, g, o = (
            scaled(norm, x[:, t] @ w_x + b_x + h @ w_h + b_h)
            for norm, (w_x, w_h, b_x, b_h) in zip(made.norms, maps(made), strict=True)
        )
        c = sigma(f) * c + sigma(i) * torch.tanh(g)
        h = sigma(o) * torch.tanh(c)
    assert torch.allclose(made(x)[0][:, -1], h)


@every_cell
@pytest.mark.parametrize("norm", ["none", "layer", "group"])
def test_a_recurrent_layer_never_looks_ahead(cell: str, norm: str) -> None:
    made, x = layer(cell, norm=norm, norm_groups=2), torch.randn(2, 6, 3).double()
    later = x.clone()
    later[:, 4:] += 3
    assert torch.equal(made(later)[0][:, :4], made(x)[0][:, :4])
    assert not torch.allclose(made(later)[0][:, 4:], made(x)[0][:, 4:])


@every_cell
def test_recurrent_weights_start_orthogonal_and_biases_at_zero_but_for_the_forget_gate(cell: str) -> None:
    made: Any = Recurrent(cell, 6, 5)
    for block in made.cell.weight_hh_l0.detach().split(5):
        assert torch.allclose(block @ block.T, torch.eye(5), atol=1e-5)
    bound = math.sqrt(6 / 11)
    for block in made.cell.weight_ih_l0.detach().split(5):
        assert 0.5 * bound < block.abs().max().item() <= bound
    biases = (made.cell.bias_ih_l0 + made.cell.bias_hh_l0).tolist()
    assert biases == ([0.0] * 5 + [1.0] * 5 + [0.0] * 10 if cell == "lstm" else [0.0] * len(biases))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cell": "elman"}, "cell must be one of rnn, gru, lstm, but got 'elman'"),
        ({"cell": "gru", "activation": "relu"}, "activation must be 'tanh' for cell 'gru'.*but got 'relu'"),
        ({"cell": "lstm", "activation": "sigmoid"}, "activation must be 'tanh' for cell 'lstm'"),
        ({"activation": "maxout"}, "activation must keep the number of units"),
        ({"activation": "swish"}, "activation must be one of relu, "),
        ({"norm": "instance"}, "norm must be one of batch, layer, group, none, but got 'instance'"),
        ({"embedding_units": -1}, "embedding_units must be at least 0"),
    ],
)
def test_a_recurrent_network_tells_what_it_cannot_be_when_it_is_made(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RNNLanguageModel(**arguments)


# ---- the language model --------------------------------------------------------------------------------------------


def model(**arguments: Any) -> RNNLanguageModel:
    torch.manual_seed(2)
    return RNNLanguageModel(**{"hidden_units": 8, "vocab_size": 5, "lr_schedule": "none", **arguments})


def text(rows: int, steps: int) -> tuple[Tensor, Tensor]:
    symbols = torch.randint(5, (rows, steps + 1))
    return symbols[:, :-1], symbols[:, 1:]


def test_the_logits_are_the_documented_recurrence_of_one_hot_symbols() -> None:
    made, (x, _) = model(), text(2, 6)
    ((w_xh, w_hh, b_x, b_h),) = maps(of_type(made, Recurrent)[0])
    (output,) = of_type(made, nn.Linear)
    h, logits = torch.zeros(2, 8), []
    for t in range(6):
        one_hot = torch.eye(5)[x[:, t]]
        h = torch.tanh(one_hot @ w_xh + h @ w_hh + b_x + b_h)
        logits.append(h @ output.weight.T + output.bias)
    assert torch.allclose(made(x), torch.stack(logits, dim=1), atol=1e-5)


def test_with_an_embedding_the_input_is_the_symbol_s_learnt_vector() -> None:
    made, (x, _) = model(embedding_units=3), text(2, 4)
    (embedding,) = of_type(made, nn.Embedding)
    (recurrent,) = of_type(made, Recurrent)
    (output,) = of_type(made, nn.Linear)
    assert torch.allclose(made(x), output(recurrent(embedding.weight[x])[0]))


@every_cell
def test_the_layers_of_a_stack_feed_each_other(cell: str) -> None:
    made, (x, _) = model(cell=cell, depth=3), text(2, 4)
    first, second, third = of_type(made, Recurrent)
    (output,) = of_type(made, nn.Linear)
    hidden = first(F.one_hot(x, 5).float())[0]
    assert torch.allclose(made(x), output(third(second(hidden)[0])[0]))


@every_cell
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_parameters_do_not_grow_with_the_number_of_steps(cell: str, norm: str) -> None:
    made = model(cell=cell, norm=norm)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    expected = gates * 8 * (5 + 8 + 2) + 5 * (8 + 1) + (gates * 2 * 8 if norm == "layer" else 0)
    for steps in (1, 10, 100):
        assert made(torch.zeros(1, steps, dtype=torch.int64)).shape == (1, steps, 5)
        assert sum(parameter.numel() for parameter in made.parameters()) == expected


@every_cell
def test_a_text_read_in_two_halves_gives_the_logits_of_one_pass(cell: str) -> None:
    made, (x, _) = model(cell=cell, depth=2), text(3, 9)
    whole, _ = made.unroll(x)
    first, state = made.unroll(x[:, :4])
    second, _ = made.unroll(x[:, 4:], state)
    assert torch.allclose(torch.cat([first, second], dim=1), whole, atol=1e-6)
    assert torch.equal(made(x), whole)


def test_dropout_acts_on_every_layer_s_outputs_and_not_through_time() -> None:
    made, (x, _) = model(depth=2, dropout=0.5).train(), text(4, 50)
    dropped: list[float] = []
    states: list[Tensor] = []
    for dropout in of_type(made, nn.Dropout):
        dropout.register_forward_hook(lambda _, _inputs, out: dropped.append((out == 0).float().mean().item()))
    for recurrent in of_type(made, Recurrent):
        recurrent.register_forward_hook(lambda _, _inputs, out: states.append(out[1]))
    made(x)
    assert len(dropped) == 2
    assert all(0.4 < share < 0.6 for share in dropped)
    assert all((state != 0).all() for state in states)
    assert torch.equal(made.eval()(x), made(x))
    assert not torch.equal(made.train()(x), made(x))


# ---- carried state -------------------------------------------------------------------------------------------------


class Losses(L.Callback):
    """What each training step and each validation says."""

    def __init__(self) -> None:
        self.train: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.train.append(outputs["loss"].item())


def losses_of(made: RNNLanguageModel, batches: Sequence[Any], **arguments: Any) -> list[float]:
    seen = Losses()
    fitted(made, Given(batches), callbacks=[seen], **arguments)
    return seen.train


STILL: dict[str, Any] = {"learning_rate": 1e-30}  # nothing is learnt, so that losses can be compared


@every_cell
def test_a_training_batch_goes_on_where_the_one_before_ended(cell: str) -> None:
    made, (x, y) = model(cell=cell, **STILL), text(3, 8)
    halves = [(x[:, :5], y[:, :5]), (x[:, 5:], y[:, 5:])]
    logits = made(x).detach()
    expected = [F.cross_entropy(logits[:, part].transpose(1, 2), y[:, part]).item() for part in (slice(5), slice(5, 8))]
    assert losses_of(made, halves) == pytest.approx(expected, rel=1e-5)
    apart = losses_of(model(cell=cell, carry_state=False, **STILL), halves)
    assert apart[0] == pytest.approx(expected[0], rel=1e-5)
    assert apart[1] == pytest.approx(F.cross_entropy(made(x[:, 5:]).transpose(1, 2), y[:, 5:]).item(), rel=1e-5)
    assert apart[1] != pytest.approx(expected[1], rel=1e-4)


def test_each_epoch_starts_from_zeros() -> None:
    torch.manual_seed(0)
    losses = losses_of(model(**STILL), [text(3, 5), text(3, 5)], max_epochs=3)
    assert losses[2:4] == losses[4:] == losses[:2]


def test_a_validation_amid_an_epoch_leaves_the_training_state_alone() -> None:
    torch.manual_seed(0)
    batches = [text(3, 5) for _ in range(4)]
    without = losses_of(model(**STILL), batches, limit_val_batches=0)
    assert losses_of(model(**STILL), batches, val_check_interval=2) == without
    apart = losses_of(model(carry_state=False, **STILL), batches)
    assert apart[2] != pytest.approx(without[2], rel=1e-4)


def test_a_batch_of_another_size_starts_from_zeros() -> None:
    torch.manual_seed(0)
    made, (x, y) = model(**STILL), text(2, 5)
    losses = losses_of(made, [text(3, 5), (x, y)])
    assert losses[1] == pytest.approx(F.cross_entropy(made(x).transpose(1, 2), y).item(), rel=1e-5)


def validated(made: RNNLanguageModel, batches: Sequence[Any]) -> dict[str, float]:
    (logged,) = lean().validate(made, datamodule=Given(batches, batches), verbose=False)
    return dict(logged)


def test_validation_carries_its_state_and_every_validation_begins_anew() -> None:
    made, (x, y) = model(), text(3, 8)
    halves = [(x[:, :5], y[:, :5]), (x[:, 5:], y[:, 5:])]
    whole = F.cross_entropy(made.eval()(x).transpose(1, 2), y).item()
    assert validated(made, halves)["val_loss"] == pytest.approx(whole, rel=1e-5)
    assert validated(made, halves)["val_loss"] == pytest.approx(whole, rel=1e-5)
    apart = model(carry_state=False)
    assert validated(apart, halves)["val_loss"] != pytest.approx(whole, rel=1e-4)


# ---- clipping ------------------------------------------------------------------------------------------------------


def test_by_default_gradients_are_clipped_to_a_norm_of_one() -> None:
    norms: list[float] = []

    class Norms(L.Callback):
        def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
            gradients = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                norms.append(torch.stack(gradients).norm().item())

    def steep(**arguments: Any) -> list[float]:
        norms.clear()
        torch.manual_seed(0)
        made = model(optimizer="sgd", learning_rate=1e-30, **arguments)
        with torch.no_grad():
            of_type(made, nn.Linear)[0].weight.mul_(100)
        # the second step's zeroing sees what the first step took
        fitted(made, Given([text(3, 8), text(3, 8)]), callbacks=[Norms()], limit_val_batches=0)
        return list(norms)

    assert max(steep(clip_norm=None)) > 2
    clipped = steep()
    assert clipped
    assert all(norm <= 1 + 1e-5 for norm in clipped)
    assert max(clipped) == pytest.approx(1, rel=1e-3)


# ---- writing on ----------------------------------------------------------------------------------------------------


def test_writing_is_reproducible_under_a_seed() -> None:
    made, prompt = model(), torch.tensor([1, 2, 3])
    written = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        written.append(made.generate(prompt, 30).tolist())
    assert written[0] == written[1]
    assert written[0] != written[2]
    assert all(0 <= symbol < 5 for symbol in written[0])
    assert len(written[0]) == 30


@every_cell
def test_at_a_low_temperature_the_likeliest_symbol_is_written(cell: str) -> None:
    made, symbols = model(cell=cell, dropout=0.5, depth=2), [1, 2, 3]
    prompt = torch.tensor(symbols)
    made.eval()
    for _ in range(12):  # from the start at each symbol, without any carried state
        symbols.append(int(made(torch.tensor([symbols]))[0, -1].argmax()))
    assert made.train().generate(prompt, 12, temperature=1e-4).tolist() == symbols[3:]
    assert made.training


def test_symbols_are_drawn_with_the_probabilities_of_the_network() -> None:
    made = model()
    (output,) = of_type(made, nn.Linear)
    nn.init.zeros_(output.weight)
    with torch.no_grad():
        output.bias.copy_(torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).log())
    torch.manual_seed(0)
    shares = torch.bincount(made.generate(torch.tensor([0]), 4000), minlength=5) / 4000
    assert shares.tolist() == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.0625], abs=4 * 0.5 / math.sqrt(4000))
    # at a temperature of 1/2 the probabilities are squared
    torch.manual_seed(0)
    shares = torch.bincount(made.generate(torch.tensor([0]), 4000, temperature=0.5), minlength=5) / 4000
    squares = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).square()
    assert shares.tolist() == pytest.approx((squares / squares.sum()).tolist(), abs=4 * 0.5 / math.sqrt(4000))


def test_writing_nothing_gives_nothing() -> None:
    assert model().generate(torch.tensor([1]), 0).shape == (0,)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_told(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature must be above 0, but got {temperature}"):
        model().generate(torch.tensor([1]), 3, temperature=temperature)


def test_an_empty_prompt_is_told() -> None:
    with pytest.raises(ValueError, match="prompt"):
        model().generate(torch.zeros(0, dtype=torch.int64), 3)


def test_after_an_error_the_network_trains_on() -> None:
    made = model().train()
    with pytest.raises((IndexError, RuntimeError)):
        made.generate(torch.tensor([99]), 3)  # no such symbol
    assert made.training


def test_writing_changes_neither_the_network_nor_its_carried_state() -> None:
    torch.manual_seed(0)
    batches = [text(3, 5), text(3, 5)]

    class Writes(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
            pl_module.generate(torch.tensor([1]), 3)

    without = Losses()
    made = model(**STILL)
    other = copy.deepcopy(made)
    fitted(made, Given(batches), callbacks=[without])
    with_writing = Losses()
    fitted(other, Given(batches), callbacks=[with_writing, Writes()])
    assert with_writing.train == without.train
