"""One call of all slices at once: `torch.func.vmap` over the module's own step, recorded and replayed.

A recording leaves plain ATen operations, without the module's Python and without autograd, whose cost for small
networks is most of a step. Each form of a step has its own: the shapes of its batch, what it carries, how many slices.
"""

# Shapes: K = slices, P = trained parameters of one of them.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tuner.cohort.errors import NotFusable, unfusable
from tuner.cohort.recording import Recording, Recordings, explained
from tuner.cohort.rows import Rows
from tuner.cohort.template import Logged, Place, Template
from tuner.training.borrowed import is_param_in_hook_signature

State = dict[Place, Any]


@dataclass(frozen=True)
class Batches:
    """The batches of all slices for one step.

    Attributes:
        tensors: the tensors of a batch, each of shape (K, …), or (…) if all slices have the same one.
        shared: whether they do.
        spec: how they make up a batch.
    """

    tensors: tuple[Tensor, ...]
    shared: bool
    spec: pytree.TreeSpec


@dataclass(frozen=True)
class Outcome:
    """What a step of all slices gives.

    Attributes:
        gradients: shape (K, P); None of a step that does not train.
        loss: shape (K,).
        logged: the calls of `self.log` with their values, each of shape (K,) or a plain number.
        replayed: whether it came from a recording.
    """

    gradients: Tensor | None
    loss: Tensor | None
    logged: list[tuple[Logged, Tensor | float]]
    replayed: bool


class Step:
    """A method of the module, `training_step` or `validation_step`, for all slices.

    Args:
        template: stands for every slice.
        rows: their parameters and buffers.
        method: its name.
        trains: whether its gradient is wanted.
        recordings: of the steps of this shape, which its cohorts share.
    """

    def __init__(self, template: Template, rows: Rows, method: str, *, trains: bool, recordings: Recordings) -> None:
        self.template, self.rows, self.method, self.trains = template, rows, method, trains
        self.takes_index = is_param_in_hook_signature(getattr(template.module, method), "batch_idx", min_args=2)
        self.state: State = {}
        self.recordings = recordings

    def __call__(self, batches: Batches, same_randomness: bool = False) -> Outcome:
        """Call the step.

        Args:
            batches: one for each slice.
            same_randomness: draw once for all slices, as each alone would from this seed; to compare with.
        """
        flat, spec = pytree.tree_flatten(self.state) if self.state else ((), _NOTHING)
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        rest = tuple(None if isinstance(leaf, Tensor) else _Static(leaf) for leaf in flat)
        form = (
            self.method,
            len(self.rows),
            batches.shared,
            batches.spec,
            spec,
            rest,
            tuple((t.shape, t.dtype) for t in (*tensors, *batches.tensors)),
        )
        given = (
            self.rows.trained,
            tuple(self.rows.fixed.values()),
            tuple(self.template.varying.values()),
            tuple(tensors),
            batches.tensors,
        )
        recording = Recording() if same_randomness else self.recordings.of(form)
        replayed = recording.made
        if replayed:
            out = self._replayed(recording, given)
        elif same_randomness:
            out = explained(self._function(batches, spec, rest, recording, "same"), given)
        else:
            function = self._function(batches, spec, rest, recording, "different")
            out = self.recordings.run(recording, self.method, function, given)
        return self._unpacked(recording.note, out, replayed)

    @staticmethod
    def _replayed(recording: Recording, given: tuple[Any, ...]) -> Any:
        try:
            return recording.replay(given)
        except Exception as error:  # operations on the user's data
            raise unfusable(error) from error

    def _unpacked(self, told: _Told, out: tuple[Any, ...], replayed: bool) -> Outcome:
        gradients, loss, logged, state, buffers = out
        self.state = pytree.tree_unflatten(told.filled(state), told.state)
        self.rows.update(dict(zip(told.buffers, buffers, strict=True)))
        values = iter(logged)
        calls = [(call, next(values) if number is None else number) for call, number in told.logged]
        return Outcome(gradients, loss, calls, replayed)

    def _function(
        self, batches: Batches, spec: pytree.TreeSpec, rest: tuple[Any, ...], recording: Recording, randomness: str
    ) -> Callable[..., Any]:
        """The step as a function of tensors alone; what else a call says is noted in the recording."""
        names, places = list(self.rows.fixed), list(self.template.varying)

        def one(
            row: Tensor,
            fixed: Sequence[Tensor],
            varying: Sequence[Tensor],
            state: Sequence[Tensor],
            batch: Sequence[Tensor],
        ) -> tuple[Tensor, tuple[Any, ...]]:
            parameters = {**self.rows.parameters_of(row), **dict(zip(names, fixed, strict=True))}
            given = iter(state)
            attributes = pytree.tree_unflatten([next(given) if s is None else s.value for s in rest], spec)
            args = (pytree.tree_unflatten(list(batch), batches.spec), *((_Number(0),) if self.takes_index else ()))
            called = self.template.call(
                self.method, args, parameters, dict(zip(places, varying, strict=True)), attributes
            )
            loss = _loss(called.returned, self.method) if self.trains else row.new_zeros(())
            after, after_spec = pytree.tree_flatten(called.state)
            recording.note = _Told(
                after_spec,
                tuple(None if isinstance(leaf, Tensor) else _Static(leaf) for leaf in after),
                tuple(called.buffers),
                tuple((call, None if isinstance(value, Tensor) else value) for call, value in called.logged),
            )
            logged = tuple(value.detach() for _, value in called.logged if isinstance(value, Tensor))
            carried = tuple(leaf for leaf in after if isinstance(leaf, Tensor))
            return loss, (loss.detach(), logged, carried, tuple(called.buffers.values()))

        dims = (0, 0, 0, 0, None if batches.shared else 0)

        if self.trains:

            def step(*given: Any) -> tuple[Any, ...]:
                graded = torch.func.grad_and_value(one, has_aux=True)
                gradients, (_, aux) = torch.func.vmap(graded, in_dims=dims, randomness=randomness)(*given)
                return gradients, *aux

            return step

        def evaluate(*given: Any) -> tuple[Any, ...]:
            with torch.no_grad():
                _, aux = torch.func.vmap(one, in_dims=dims, randomness=randomness)(*given)
            return None, *aux

        return evaluate


_NOTHING = pytree.tree_structure({})


@dataclass(frozen=True)
class _Static:
    """A leaf that is no tensor."""

    value: Any


@dataclass(frozen=True)
class _Told:
    """What a call says besides tensors: how the state is made up, which buffers were assigned, what was logged."""

    state: pytree.TreeSpec
    rest: tuple[_Static | None, ...]
    buffers: tuple[str, ...]
    logged: tuple[tuple[Logged, float | None], ...]

    def filled(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The leaves of the state."""
        given = iter(tensors)
        return [next(given) if leaf is None else leaf.value for leaf in self.rest]


def _loss(returned: Any, method: str) -> Tensor:
    loss = returned.get("loss") if isinstance(returned, Mapping) else returned
    if not isinstance(loss, Tensor):
        raise NotFusable(f"{method} returns no loss")
    if loss.numel() != 1:
        raise NotFusable(f"{method} returns a loss of {loss.numel()} values")
    return loss.reshape(())


class _Number(int):
    """The number of a batch, which must not be looked at: a recording would know one number for ever."""


def _never(*_: Any, **__: Any) -> Any:
    raise NotFusable("its step looks at batch_idx")


_LOOKING = (
    *("eq", "ne", "lt", "le", "gt", "ge", "bool", "int", "float", "index", "hash", "str", "repr", "format"),
    *("add", "radd", "sub", "rsub", "mul", "rmul", "mod", "rmod", "floordiv", "rfloordiv", "truediv", "rtruediv"),
    *("neg", "pow", "and", "or", "xor", "divmod"),
)
for _operation in _LOOKING:
    setattr(_Number, f"__{_operation}__", _never)
