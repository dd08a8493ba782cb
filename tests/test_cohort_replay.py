"""Traces of functions of tensors: what is noted, what is left out, and that a replay does what the function does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.cohort import replay
from tuner.cohort.graph import shorten
from tuner.cohort.in_place import write_in_place
from tuner.cohort.trace import Trace, trace

Function = Callable[..., Any]


def given() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 4, generator=generator), torch.randn(4, 4, generator=generator)]


def written_through_a_slice(x: Tensor, w: Tensor) -> Tensor:
    y = x.clone()
    before = y @ w
    y[:, 0] += 1.0
    return before + y @ w


def with_a_constant(x: Tensor, w: Tensor) -> tuple[Tensor, None, tuple[Tensor, Tensor]]:
    scale = torch.tensor([2.0, 3.0, 4.0, 5.0]) * torch.arange(4.0).exp()
    return x @ (w * scale), None, (x, scale.sum())


def with_gradients(x: Tensor, w: Tensor) -> Any:
    def loss(weight: Tensor, row: Tensor) -> Tensor:
        hidden = F.dropout(F.gelu(row @ weight).softmax(-1), 0.5)
        return F.cross_entropy(hidden.unsqueeze(0), torch.tensor([1]))

    return torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(None, 0), randomness="different")(w, x)


def with_lists(x: Tensor, w: Tensor) -> Tensor:
    first, second = x.split([1, 3], dim=1)
    values, index = (second * 2).max(dim=1)
    return torch.cat([first, values.unsqueeze(1), index.to(torch.float32).unsqueeze(1)], dim=1).clamp(
        -1.0, float("inf")
    )


def with_an_index(x: Tensor, w: Tensor) -> Tensor:
    return w[:, torch.tensor([0, 2])].sum(dim=0, dtype=torch.float64) + x.to(torch.float64)[:, 1:3]


def twice_the_same_draw(x: Tensor, w: Tensor) -> Tensor:
    return torch.rand_like(x) - torch.rand_like(x) + torch.randn(4)


def that_writes_to_what_it_is_given(x: Tensor, w: Tensor) -> Tensor:
    running = w.mul_(0.9).add_(x.mean(), alpha=0.1)
    return F.batch_norm(x, w[0], w[1].abs(), training=True) + running.sum()


def with_draws_of_another_type(x: Tensor, w: Tensor) -> Tensor:
    drawn = torch.randint(-(2**63), 2**63 - 1, (3,)).view(torch.int16)
    kept = drawn.view(3, 4) > 0
    again = torch.randint(-(2**63), 2**63 - 1, (2,)).view(torch.int16)[:4] > 0
    return x * kept @ w * again


def with_operands_that_are_needed_later(x: Tensor, w: Tensor) -> Any:
    scaled = x * 2.0  # what is given stays
    seen = scaled.exp()  # scaled is read below
    part = scaled[:, 1:]
    shifted = scaled + 1.0  # part is read below
    squared = (seen * seen).tanh()  # an operand given twice
    twice = w + 2.0
    twice = twice.scatter_add(0, torch.tensor([[1, 2, 3, 0], [0, 1, 2, 3]]), twice)
    bias = w[0] * 3.0
    broadcast = bias + seen  # smaller than the result
    kept = (broadcast * 0.5, broadcast)  # returned
    turned = (w - 1.0).t() * (w - 1.0)  # one and the same operation, laid out in two ways
    return part.sum(), shifted.neg().relu(), squared, twice, kept, turned, torch.tensor([1.0, 2.0, 3.0, 4.0]).mul(x)


def with_what_a_view_shows(x: Tensor, w: Tensor) -> Any:
    base = x + 1.0
    view = base.view(4, 3)
    over = view * 2.0
    again = base.exp()
    own = w + 1.0
    return over, again, own.view(2, 8).neg(), torch.func.grad(lambda z: (z.sigmoid() * z.tanh().relu()).sum())(x + w[0])


FUNCTIONS = [
    with_operands_that_are_needed_later,
    with_what_a_view_shows,
    with_draws_of_another_type,
    written_through_a_slice,
    with_a_constant,
    with_gradients,
    with_lists,
    with_an_index,
    twice_the_same_draw,
    that_writes_to_what_it_is_given,
]


@pytest.fixture(params=["script", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How traces are replayed."""
    if request.param == "python":

        def refuses(_: Trace) -> Any:
            raise replay._NoScript

        monkeypatch.setattr(replay, "_by_script", refuses)
    return str(request.param)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_replay_gives_and_leaves_the_bits_of_the_function(function: Function, way: str) -> None:
    made = trace(function, given())
    shorten(made)
    write_in_place(made)
    torch.manual_seed(1)
    wanted_of = given()
    wanted = torch.utils._pytree.tree_leaves(function(*wanted_of))
    called = replay.replay_of(made, given())
    torch.manual_seed(1)
    got_of = given()
    with torch.no_grad():
        got = called(*got_of)
    assert len(got) == len(wanted)
    for mine, theirs in zip([*got, *got_of], [*wanted, *wanted_of], strict=True):
        assert (mine is None and theirs is None) or torch.equal(mine, theirs.detach())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_torch_s_interpreter_takes_what_steps_are_made_of(function: Function) -> None:
    made = trace(function, given())
    shorten(made)
    write_in_place(made)
    assert replay._same(replay._by_python(made), replay._by_script(made), given())


def test_what_torchscript_does_otherwise_is_replayed_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trace(with_lists, given())
    monkeypatch.setattr(replay, "_by_script", lambda _: lambda x, w: [with_lists(x, w) + 1e-6])
    with torch.no_grad():
        assert torch.equal(replay.replay_of(made, given())(*given())[0], with_lists(*given()))


def test_what_torchscript_cannot_write_and_is_no_draw_is_replayed_by_python() -> None:
    def looks_at_bits(x: Tensor, w: Tensor) -> Tensor:
        return x.view(torch.int32) ^ 1

    made = trace(looks_at_bits, given())
    with pytest.raises(replay._NoScript):
        replay._by_script(made)
    assert torch.equal(replay.replay_of(made, given())(*given())[0], looks_at_bits(*given()))


def test_an_error_of_torchscript_s_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trace(with_lists, given())

    def raises(*_: Tensor) -> Any:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(replay, "_by_script", lambda _: raises)
    with torch.no_grad():
        assert torch.equal(replay.replay_of(made, given())(*given())[0], with_lists(*given()))


def test_a_number_taken_out_of_a_tensor_is_refused_but_not_one_of_a_constant() -> None:
    def looks(x: Tensor, w: Tensor) -> Tensor:
        return x * float(w.sum())

    def knows(x: Tensor, w: Tensor) -> Tensor:
        return x * float(torch.tensor(3.0))

    with pytest.raises(RuntimeError, match="takes a number out of a tensor"):
        trace(looks, given())
    made = trace(knows, given())
    assert torch.equal(replay.replay_of(made, given())(*given())[0], given()[0] * 3)


def test_traces_are_told_apart_by_operations_numbers_and_constants() -> None:
    def times(number: float, constant: float) -> Trace:
        return trace(lambda x, w: x * number + torch.tensor(constant), given())

    assert times(2.0, 1.0).does_as(times(2.0, 1.0))
    assert not times(2.0, 1.0).does_as(times(2.5, 1.0))
    assert not times(2.0, 1.0).does_as(times(2.0, 1.5))
    assert not times(2.0, 1.0).does_as(trace(lambda x, w: x + 2.0 + torch.tensor(1.0), given()))


def test_what_is_computed_twice_or_known_beforehand_is_left_out() -> None:
    def wasteful(x: Tensor, w: Tensor) -> Tensor:
        known = torch.arange(4.0) * 2
        return (x @ w).relu() + (x @ w).relu() + known.view(1, 4).view(4)

    made = trace(wasteful, given())
    shorten(made)
    left = [str(node.target) for node in made.graph.nodes if node.op == "call_function"]
    assert left == ["aten.mm.default", "aten.relu.default", "aten.add.Tensor", "aten.add.Tensor"]


def test_an_operation_writes_to_what_nobody_reads_afterwards() -> None:
    def frugal(x: Tensor, w: Tensor) -> Tensor:
        hidden = torch.mm(x, w) + 1.0
        gradient = torch.ops.aten.threshold_backward(hidden.exp() * hidden, hidden, 0)
        return (w[0] + gradient).scatter_add(1, torch.tensor([[0], [1], [2]]), x[:, :1])

    made = trace(frugal, given())
    shorten(made)
    write_in_place(made)
    left = [str(node.target) for node in made.graph.nodes if node.op == "call_function"]
    assert [name.removeprefix("aten.") for name in left if not re.search("select|slice|lift", name)] == [
        "mm.default",
        "add_.Tensor",
        "exp.default",  # hidden is read once more
        "mul_.Tensor",
        "threshold_backward.grad_input",
        "add_.Tensor",  # the other way round
        "scatter_add_.default",
    ]
