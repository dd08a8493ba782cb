"""A function of tensors recorded once and then replayed, without its Python and without autograd.

What Python does besides is done once, at the recording: a number from Python's or NumPy's generator would be the same
for ever. So the first recording of a function is made twice, from two states of those generators, and if they differ it
is never recorded.
"""

from __future__ import annotations

import itertools
import random
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tuner.cohort.errors import NotFusable, OutOfMemoryTogether
from tuner.cohort.graph import shorten
from tuner.cohort.in_place import write_in_place
from tuner.cohort.replay import Replay, replay_of
from tuner.cohort.trace import Trace, trace
from tuner.training import exhausted

Function = Callable[..., Any]


class Recording:
    """One form of a function: called as it is until recording pays, then replayed.

    Attributes:
        note: for the function to say what is no tensor; as its latest call, or its recording, left it.
    """

    def __init__(self) -> None:
        self.note: Any = None
        self.spent = 0.0
        self.calls = 0
        self.graph: Replay | None = None
        self.returns: list[int | None] = []  # of each that is returned: None for a tensor, or how many are in a tuple

    @property
    def made(self) -> bool:
        """Whether it can be replayed."""
        return self.graph is not None

    def replay(self, given: tuple[Any, ...]) -> Any:
        """What the function would return; given and returned are tensors and tuples of them."""
        assert self.graph is not None  # noqa: S101
        flat: list[Tensor] = []
        for one in given:
            if type(one) is tuple:
                flat += one
            else:
                flat.append(one)
        with torch.no_grad():
            returned = iter(self.graph(*flat))
        return tuple(
            next(returned) if count is None else tuple(itertools.islice(returned, count)) for count in self.returns
        )


class Recordings:
    """The recordings of steps of one shape.

    Nobody knows how often a form will be called: at every step of an epoch, or once an epoch. So it is recorded once
    calling it without has cost, or is known to cost, what recording costs.

    Args:
        checked: names of functions that were found to be the same when recorded twice; may be shared by the shapes of
            a class of modules, whose Python is the same.

    Attributes:
        seconds: what the latest recording took; 0 before the first, so that the second call of anything is recorded.
        calls_left: how often a form will be called at least, in the epochs that are left.
        frozen: whether recording would freeze something that Python draws anew in every step, so nothing is recorded.
    """

    def __init__(self, checked: set[str] | None = None) -> None:
        self.seconds = 0.0
        self.calls_left = 0
        self.frozen = False
        self._checked: set[str] = set() if checked is None else checked
        self._known: dict[Hashable, Recording] = {}

    def of(self, form: Hashable) -> Recording:
        """The recording of a form, which may not have been made yet."""
        return self._known.setdefault(form, Recording())

    def _pays(self, recording: Recording) -> bool:
        """Whether what calling it has cost, and will at least cost, is more than recording does."""
        if recording.calls == 0:
            return False
        return recording.spent * (1 + self.calls_left / recording.calls) >= self.seconds

    def run(self, recording: Recording, name: str, function: Function, given: tuple[Any, ...]) -> Any:
        """Call a function, record it, or replay its recording.

        Args:
            recording: of this form.
            name: of the function; all its forms run the same Python.
            function: of tensors, in tuples.
            given: its arguments.

        Raises:
            NotFusable: torch cannot do to all slices at once what the function does.
        """
        if recording.graph is None and (self.frozen or not self._pays(recording)):
            started = time.perf_counter()
            out = explained(function, given)
            recording.spent += time.perf_counter() - started
            recording.calls += 1
            return out
        if recording.graph is None:
            started = time.perf_counter()
            made = _record(function, given)
            if name not in self._checked and not made.does_as(_record(function, given, draws=1)):
                self.frozen = True
                return explained(function, given)
            self._checked.add(name)
            recording.returns, gave = _counts(made), made.outputs()
            shorten(made)
            write_in_place(made)
            with _kept_randomness():
                graph = replay_of(made, pytree.tree_leaves(given))
            if not _gives(graph, given, gave):
                raise NotFusable("its recording does not do what it did when it was recorded")
            recording.graph = graph
            self.seconds = time.perf_counter() - started
        return recording.replay(given)


def _record(function: Function, given: tuple[Any, ...], draws: int = 0) -> Trace:
    """The function's operations on tensors like these, after so many draws of Python's and NumPy's generators."""
    copies = _copies(given)
    with _kept_randomness():
        for _ in range(draws):
            random.random()  # noqa: S311 - nothing secret
            np.random.rand()  # the generators that users' steps draw from
        made: Trace = explained(trace, (function, copies))
    made.graph.eliminate_dead_code()
    return made


def _gives(graph: Replay, given: tuple[Any, ...], wanted: Sequence[Tensor | None]) -> bool:
    """Whether a replay gives, from the same random state, what the function gave; rounding aside, as on a GPU."""
    with _kept_randomness(), torch.no_grad():
        got = graph(*pytree.tree_leaves(_copies(given)))
    return all(_close(mine, its) for mine, its in zip(got, wanted, strict=True))


def _close(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b.detach(), rtol=1e-3, atol=1e-6, equal_nan=True)


def _counts(made: Trace) -> list[int | None]:
    spec = made.returned
    assert spec is not None  # noqa: S101
    returned = pytree.tree_unflatten([None] * spec.num_leaves, spec)
    return [len(one) if isinstance(one, tuple) else None for one in returned]


def _copies(given: tuple[Any, ...]) -> tuple[Any, ...]:
    copies: tuple[Any, ...] = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, given)
    return copies


@contextmanager
def _kept_randomness() -> Iterator[None]:
    """Leave the generators as they were found."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def explained(function: Function, given: tuple[Any, ...]) -> Any:
    """Call a function; what torch cannot do to all slices at once becomes the reason."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*performance drop.*")
            return function(*given)
    except NotFusable:
        raise
    except Exception as error:  # the user's code runs here, on tensors that it was not written for
        told = str(error).strip().splitlines()
        if exhausted(error):
            raise OutOfMemoryTogether("they do not fit into memory together") from error
        raise NotFusable(f"{type(error).__name__} in all slices at once: {told[0] if told else ''}") from error
