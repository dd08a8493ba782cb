"""A trace as something to call: by TorchScript's interpreter, which costs half of what Python does between operations.

TorchScript only carries out what it is given, without its optimiser, and it is used where it gives the very same
numbers on the tensors of the recording; anything it does not take is replayed by Python.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from tuner.cohort.trace import Trace

Replay = Callable[..., Sequence[Tensor | None]]
"""Called with the flat tensors that the trace was given; returns what it returned, flat."""


def replay_of(made: Trace, given: Sequence[Tensor]) -> Replay:
    """The quicker way of doing what a trace says.

    Args:
        made: the trace.
        given: tensors like those that it was made with; they stay as they are.
    """
    by_python = _by_python(made)
    try:
        by_script = _by_script(made)
        if _same(by_python, by_script, given):
            return by_script
    except _NoScript:
        pass
    return by_python


class _NoScript(Exception):
    """TorchScript does not take this."""


def _same(one: Replay, other: Replay, given: Sequence[Tensor]) -> bool:
    """Whether two replays give and leave the same, from the same random state."""
    found = []
    state = torch.get_rng_state()
    for replay in (one, other):
        torch.set_rng_state(state)
        copies = [tensor.clone() for tensor in given]
        with torch.no_grad():
            try:
                out = replay(*copies)
            except RuntimeError as error:
                if replay is one:
                    raise
                raise _NoScript from error
        found.append(([*out, *copies], torch.get_rng_state()))
    (a, state_a), (b, state_b) = found
    return torch.equal(state_a, state_b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride()) and torch.equal(
        torch.nan_to_num(a), torch.nan_to_num(b)
    )


# ---- Python --------------------------------------------------------------------------------------------------------


def _by_python(made: Trace) -> Replay:
    """As a Python function that calls torch's own, without what fx and `torch.ops` put in between."""
    names: dict[str, Any] = dict(made.constants)
    arguments: list[str] = []
    lines: list[str] = []

    def written(value: Any) -> str:
        if isinstance(value, Node):
            return str(value.target) if value.op == "get_attr" else value.name
        if isinstance(value, list | tuple):
            return "[" + ", ".join(written(one) for one in value) + "]"
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        name = f"value_{len(names)}"
        names[name] = value
        return name

    over = _last_uses(made)
    for node in made.graph.nodes:
        if node.op == "placeholder":
            arguments.append(node.name)
        elif node.op == "output":
            lines.append(f"return {written(list(node.args[0]))}")
        elif node.target is getitem:
            lines.append(f"{node.name} = {node.args[0]}[{node.args[1]}]")
        elif node.op == "call_function":
            names[f"call_{node.name}"] = getattr(node.target, "_op", node.target)
            given = [written(a) for a in node.args] + [f"{k}={written(v)}" for k, v in node.kwargs.items()]
            lines.append(f"{node.name} = call_{node.name}({', '.join(given)})")
        if node in over:
            lines.append(f"del {', '.join(over[node])}")
    body = "".join(f"    {line}\n" for line in lines)
    exec(f"def replay({', '.join(arguments)}):\n{body}", names)  # noqa: S102 - it is our own
    replay: Replay = names["replay"]
    return replay


def _last_uses(made: Trace) -> dict[Node, list[str]]:
    """The names that nobody needs any more, by the node after which that is so."""
    last = {one: node for node in made.graph.nodes for one in node.all_input_nodes}
    over: dict[Node, list[str]] = {}
    for one, user in last.items():
        if one.op == "call_function" and user.op != "output":
            over.setdefault(user, []).append(one.name)
    return over


# ---- TorchScript ---------------------------------------------------------------------------------------------------

_DTYPES = {
    kind: number
    for number, kind in enumerate(
        (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64)
    )
} | {torch.bool: 11, torch.bfloat16: 15}
_MEMORY_FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2}


def _by_script(made: Trace) -> Replay:
    """As a TorchScript function.

    Raises:
        _NoScript: there is no such thing.
    """
    drawn, draw = _drawn_ahead(made)
    arguments: list[str] = []
    lines: list[str] = []
    constants = {
        str(node.target): made.constants[str(node.target)] for node in made.graph.nodes if node.op == "get_attr"
    }
    returned: list[Node | None] = []
    for node in made.graph.nodes:
        if node.op == "placeholder":
            arguments.append(node.name)
        elif node.op == "output":
            returned = list(node.args[0])
            lines.append("return [" + ", ".join(_written(one) for one in returned if one is not None) + "]")
        elif node.target is getitem:
            lines.append(f"{node.name} = {node.args[0]}[{node.args[1]}]")
        elif node.op == "call_function" and node not in drawn:
            if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
                raise _NoScript
            given = [_written(a) for a in node.args] + [f"{k}={_written(v)}" for k, v in node.kwargs.items()]
            lines.append(f"{node.name} = torch.ops.aten.{node.target._schema.name[6:]}({', '.join(given)})")
    arguments += [node.name for node in drawn if node.target in _UNWRITTEN]
    typed = ", ".join(f"{name}: Tensor" for name in (*arguments, *constants))
    source = f"def replay({typed}) -> List[Tensor]:\n" + "".join(f"    {line}\n" for line in lines)
    try:
        with warnings.catch_warnings(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.CompilationUnit(source).replay
    except (RuntimeError, AttributeError) as error:  # torch without TorchScript, or with less of it
        raise _NoScript from error
    rest, places = tuple(constants.values()), [one is not None for one in returned]
    if all(places):
        return lambda *given: script(*given, *draw(), *rest)

    def replay(*given: Tensor) -> list[Tensor | None]:
        tensors = iter(script(*given, *draw(), *rest))
        return [next(tensors) if there else None for there in places]

    return replay


_UNWRITTEN = (torch.ops.aten.view.dtype,)
"""Operations that TorchScript takes for others of their name: a dtype is a number there, so this one for a size."""


def _drawn_ahead(made: Trace) -> tuple[Sequence[Node], Callable[[], Sequence[Tensor | None]]]:
    """What Python does before the script: operations that cannot be written, on what nobody gives, so on draws.

    Returns:
        Those operations and what they need, and what carries them out and returns what cannot be written.

    Raises:
        _NoScript: one of them is of something given.
    """
    needed: set[Node] = set()
    todo = [node for node in made.graph.nodes if node.target in _UNWRITTEN]
    if not todo:
        return (), tuple
    while todo:
        node = todo.pop()
        if node.op != "call_function":
            raise _NoScript
        needed.add(node)
        todo += node.all_input_nodes
    ahead = [node for node in made.graph.nodes if node in needed]
    first, copies = Trace(), dict[Node, Node]()
    for node in ahead:
        copies[node] = first.graph.node_copy(node, copies.__getitem__)
    first.graph.output([copies[node] for node in ahead if node.target in _UNWRITTEN])
    return ahead, _by_python(first)


def _written(value: Any) -> str:
    """An argument in TorchScript.

    Raises:
        _NoScript: it has no way to write it.
    """
    if isinstance(value, Node):
        return str(value.target) if value.op == "get_attr" else value.name
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(one) for one in value) + "]"
    if type(value) is float and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if value is torch.strided:
        return "0"
    number = _DTYPES.get(value) if isinstance(value, torch.dtype) else _MEMORY_FORMATS.get(value)
    if number is None:
        raise _NoScript
    return str(number)
