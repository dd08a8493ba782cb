"""A trace made shorter: what changes nothing, is known beforehand, or is computed twice, is taken out.

For small networks a step's cost is the number of its operations. Nothing here changes a number: operations are left out
or done once, never replaced by others.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from tuner.cohort.trace import Trace, storage_of

_aten = torch.ops.aten

_VIEWS = frozenset(
    {
        _aten.alias.default,
        _aten.detach.default,
        _aten.expand.default,
        _aten.permute.default,
        _aten.squeeze.dims,
        _aten.squeeze.dim,
        _aten.t.default,
        _aten.transpose.int,
        _aten.unsqueeze.default,
        _aten.view.default,
        _aten._unsafe_view.default,
    }
)
"""Operations whose result shares the memory of their first argument."""

_UNSET = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"})

_WRITES_UNSAID: Mapping[Any, tuple[int, ...]] = {
    _aten.native_batch_norm.default: (3, 4),
    _aten._native_batch_norm_legit.default: (3, 4),
    _aten.cudnn_batch_norm.default: (3, 4),
}
"""Operations that write to arguments without saying so in their schema."""


def shorten(made: Trace) -> None:
    """Leave operations out of a trace."""
    written = _written(made)
    _drop_views(made, written)
    _fold(made, written)
    _share(made, written)
    made.graph.eliminate_dead_code()


def _written(made: Trace) -> set[Node]:
    """The nodes whose memory is written to after they are made, through themselves or through another's view of it."""
    storages: set[int] = set()
    for node in made.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            arguments = [node.args[i] for i in _WRITES_UNSAID.get(node.target, ()) if i < len(node.args)]
            for place, declared in enumerate(node.target._schema.arguments):
                if declared.alias_info is not None and declared.alias_info.is_write:
                    arguments.append(node.args[place] if place < len(node.args) else node.kwargs.get(declared.name))
            storages |= {storage_of(made.values[one]) for one in arguments if isinstance(one, Node)}
    storages.discard(0)  # where nothing is, nothing is written
    return {node for node, value in made.values.items() if isinstance(value, Tensor) and storage_of(value) in storages}


def _drop_views(made: Trace, written: set[Node]) -> None:
    """Leave out views that are the same as what they are views of, and multiplications by 1."""
    values = made.values
    for node in made.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is _aten.mul.Scalar and node.args[1] == 1 and node.args[0] not in written:
            if values[node].dtype == values[node.args[0]].dtype and not _returned(node):
                node.replace_all_uses_with(node.args[0])
            continue
        ancestor, same = node, None
        while ancestor.op == "call_function" and ancestor.target in _VIEWS and isinstance(ancestor.args[0], Node):
            ancestor = ancestor.args[0]
            if _is_same(values[node], values[ancestor]):
                same = ancestor
        if same is not None:
            node.replace_all_uses_with(same)


def _is_same(a: Any, b: Any) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)
    )


def _returned(node: Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _fold(made: Trace, written: set[Node]) -> None:
    """Compute once what depends on nothing."""
    values = made.values
    known: dict[Node, None] = {}
    for node in list(made.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if not all(one in known for one in node.all_input_nodes) or not _repeatable(node):
            continue
        if node in written or not isinstance(values[node], Tensor) or _returned(node):
            continue
        known[node] = None
    for node in known:
        if all(user in known for user in node.users):
            continue
        with made.graph.inserting_before(node):
            node.replace_all_uses_with(made.constant(values[node].clone()))


def _repeatable(node: Node) -> bool:
    """Whether an operation gives the same again, and does nothing besides."""
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded not in target.tags
        and not target._schema.is_mutable
        and target not in _WRITES_UNSAID
        and target._schema.name.partition("::")[2] not in _UNSET
    )


def _share(made: Trace, written: set[Node]) -> None:
    """Do once what is done twice to the same."""
    first: dict[Any, Node] = {}
    for node in list(made.graph.nodes):
        if node.op != "call_function" or not (_repeatable(node) or node.target is operator.getitem):
            continue
        if node in written or any(one in written for one in node.all_input_nodes):
            continue
        try:
            key = node.target, _hashable(node.args), _hashable(node.kwargs)
            earlier = first.setdefault(key, node)
        except TypeError:  # an argument that cannot be compared
            continue
        if earlier is not node and not (_returned(node) and _returned(earlier)):
            node.replace_all_uses_with(earlier)


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(one) for one in value)
    if isinstance(value, dict):
        return tuple(sorted((name, _hashable(one)) for name, one in value.items()))
    return type(value), value
