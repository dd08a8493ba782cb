"""A recording made shorter: what changes nothing, is known beforehand, or is computed twice, is taken out.

For small networks a step's cost is the number of its operations. Nothing here changes a number: operations are left out
or done once, never replaced by others.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

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


def shortened(recording: GraphModule, given: Sequence[Tensor]) -> Callable[..., list[Any]]:
    """The same recording with fewer operations, called with flat tensors and returning a flat list.

    Args:
        recording: by `make_fx`.
        given: tensors like those that it was made with; they are overwritten where it writes to them.
    """
    graph = recording.graph
    graph.set_codegen(fx.graph.CodeGen())
    recording.recompile()
    seen = _Values(recording)
    seen.run(*given)
    written = _written(graph)
    _drop_views(graph, seen.values, written)
    _fold(recording, seen.values, written)
    _share(graph, written)
    graph.eliminate_dead_code()
    return _compiled(recording)


class _Values(fx.Interpreter):
    """Runs a recording and keeps what every operation gives."""

    def __init__(self, recording: GraphModule) -> None:
        super().__init__(recording, garbage_collect_values=False)
        self.values: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        """Run an operation."""
        self.values[n] = super().run_node(n)
        return self.values[n]


def _root(node: Node) -> Node:
    """Whose memory a node's is."""
    while node.op == "call_function" and node.target in _VIEWS and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _written(graph: fx.Graph) -> set[Node]:
    """The nodes whose memory is written to after they are made."""
    written: set[Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            arguments = [node.args[i] for i in _WRITES_UNSAID.get(node.target, ()) if i < len(node.args)]
            for place, declared in enumerate(node.target._schema.arguments):
                if declared.alias_info is not None and declared.alias_info.is_write:
                    arguments.append(node.args[place] if place < len(node.args) else node.kwargs.get(declared.name))
            written |= {_root(argument) for argument in arguments if isinstance(argument, Node)}
    return written


def _drop_views(graph: fx.Graph, values: Mapping[Node, Any], written: set[Node]) -> None:
    """Leave out views that are the same as what they are views of, and multiplications by 1."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is _aten.mul.Scalar and node.args[1] == 1 and _root(node.args[0]) not in written:
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


def _fold(recording: GraphModule, values: Mapping[Node, Any], written: set[Node]) -> None:
    """Compute once what depends on nothing."""
    known: set[Node] = set()
    for node in list(recording.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if not all(one in known for one in node.all_input_nodes) or not _repeatable(node):
            continue
        if _root(node) in written or node in written or not isinstance(values[node], Tensor) or _returned(node):
            continue
        known.add(node)
    for number, node in enumerate(known):
        if all(user in known for user in node.users):
            continue
        name = f"_known_{number}"
        recording.register_buffer(name, values[node].clone(), persistent=False)
        with recording.graph.inserting_before(node):
            node.replace_all_uses_with(recording.graph.get_attr(name))


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


def _share(graph: fx.Graph, written: set[Node]) -> None:
    """Do once what is done twice to the same."""
    first: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not (_repeatable(node) or node.target is operator.getitem):
            continue
        if node in written or any(_root(one) in written for one in node.all_input_nodes):
            continue
        try:
            key = node.target, _hashable(node.args), _hashable(node.kwargs)
            earlier = first.setdefault(key, node)
        except TypeError:  # an argument that cannot be compared
            continue
        if earlier is not node and not (_returned(node) and _returned(earlier)):
            node.replace_all_uses_with(earlier)


def _compiled(recording: GraphModule) -> Callable[..., list[Any]]:
    """The recording as a Python function that calls torch's own, without what fx and `torch.ops` put in between."""
    names: dict[str, Any] = {}
    lines: list[str] = []
    arguments: list[str] = []
    last = {one: node for node in recording.graph.nodes for one in node.all_input_nodes}
    for node in recording.graph.nodes:
        given = ", ".join([_written_out(a, names) for a in node.args if node.op == "call_function"])
        named = "".join(f", {name}={_written_out(value, names)}" for name, value in node.kwargs.items())
        if node.op == "placeholder":
            arguments.append(node.name)
        elif node.op == "get_attr":
            names[node.name] = getattr(recording, node.target)
        elif node.op == "output":
            lines.append(f"    return {_written_out(list(node.args[0]), names)}")
        elif node.target is operator.getitem:
            lines.append(f"    {node.name} = {node.args[0]}[{node.args[1]}]")
        else:
            names[f"call_{node.name}"] = getattr(node.target, "_op", node.target)
            lines.append(f"    {node.name} = call_{node.name}({(given + named).removeprefix(', ')})")
        over = [one.name for one, user in last.items() if user is node and one.op == "call_function"]
        if over and node.op != "output":
            lines.append(f"    del {', '.join(over)}")
    exec(f"def replay({', '.join(arguments)}):\n" + "\n".join(lines), names)  # noqa: S102 - it is our own
    replay: Callable[..., list[Any]] = names["replay"]
    return replay


def _written_out(value: Any, names: dict[str, Any]) -> str:
    """An argument as Python; what has no plain form becomes a name."""
    if isinstance(value, Node):
        return value.name
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written_out(one, names) for one in value) + "]"
    if value is None or type(value) in (bool, int, str):
        return repr(value)
    name = f"value_{len(names)}"
    names[name] = value
    return name


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(one) for one in value)
    if isinstance(value, dict):
        return tuple(sorted((name, _hashable(one)) for name, one in value.items()))
    return type(value), value
