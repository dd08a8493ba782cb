"""What a function of tensors does, as a graph of ATen operations: noted while it runs, below autograd and vmap.

`make_fx` gives the same graph at several times the price, because it also works out what every operation would give on
tensors that are not there; here they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_PLAIN = (Tensor, torch.nn.Parameter)


@dataclass
class Trace:
    """A function's operations.

    Attributes:
        graph: one node for each operation, in their order; the output's argument is a flat list of nodes and Nones.
        values: what each node gave.
        constants: tensors that are neither given nor made by an operation, by the target of their `get_attr` node.
        returned: how what the function returned is made up.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    values: dict[Node, Any] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    returned: pytree.TreeSpec | None = None

    def constant(self, value: Tensor) -> Node:
        """A node for a tensor that is there already."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        node = self.graph.get_attr(name)
        self.values[node] = value
        return node

    def outputs(self) -> list[Tensor | None]:
        """What the function returned, flat."""
        (output,) = self.graph.find_nodes(op="output")
        return [None if node is None else self.values[node] for node in output.args[0]]

    def does_as(self, other: Trace) -> bool:
        """Whether the other does the same, to the same constants."""
        return (
            _told(self) == _told(other)
            and self.constants.keys() == other.constants.keys()
            and all(torch.equal(value, other.constants[name]) for name, value in self.constants.items())
        )


def storage_of(value: Any) -> int:
    """Where a tensor's memory begins; 0 for what has none. A trace keeps all its tensors, so none has another's."""
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0


def trace(function: Callable[..., Any], given: Sequence[Any]) -> Trace:
    """Call a function and note its operations.

    Args:
        function: of tensors and tuples of them; returns tensors, Nones and tuples of them.
        given: its arguments; overwritten where it writes to them.

    Raises:
        RuntimeError: it takes a number out of a tensor, which another call would give another.
    """
    made = Trace()
    notes = _Notes(made)
    for leaf in pytree.tree_leaves(given):
        notes.note(made.graph.placeholder(f"given_{len(made.values)}"), leaf)
    with notes:
        out = function(*given)
    leaves, made.returned = pytree.tree_flatten(out)
    made.graph.output([None if leaf is None else notes.node_of(leaf) for leaf in leaves])
    return made


class _Notes(TorchDispatchMode):
    """Adds every operation that is carried out to a trace."""

    def __init__(self, made: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = made
        self._nodes: dict[int, Node] = {}  # by the tensor's id; the trace keeps the tensors, so no id comes again
        self._literal: set[Node] = set()  # what `torch.tensor` has made: the same at every call

    def note(self, node: Node, value: Any) -> None:
        """Remember what a node has given."""
        self.made.values[node] = value
        if isinstance(value, Tensor):
            self._nodes[id(value)] = node
        elif isinstance(value, list | tuple):
            for number, one in enumerate(value):
                if isinstance(one, Tensor):
                    self.note(self.made.graph.call_function(getitem, (node, number)), one)

    def node_of(self, value: Tensor) -> Node:
        """The node that has given a tensor, or a constant's."""
        node = self._nodes.get(id(value))
        if node is None:
            node = self.made.constant(value)
            self._nodes[id(value)] = node
            self._literal.add(node)
        return node

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation and note it."""
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        if not all(issubclass(kind, _PLAIN) and kind in _PLAIN for kind in types):
            return NotImplemented
        if func is _aten.lift_fresh.default:
            func = _aten.lift_fresh_copy.default  # what comes out may be written to, the constant may not
        node_args, node_kwargs = self._noted(args), {name: self._noted(value) for name, value in kwargs.items()}
        if torch.Tag.data_dependent_output in func.tags:
            if not all(node in self._literal for node in _nodes_in(node_args)):
                raise RuntimeError(f"{func} takes a number out of a tensor that another call would give another")
            return func(*args, **kwargs)
        node = self.made.graph.call_function(func, node_args, node_kwargs)
        out = func(*args, **kwargs)
        if func is _aten.lift_fresh_copy.default and node_args[0] in self._literal:
            self._literal.add(node)
        self.note(node, out)
        return out

    def _noted(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.node_of(value)
        if type(value) in (list, tuple):
            return type(value)([self._noted(one) for one in value])
        return value


def _nodes_in(value: Any) -> list[Node]:
    if isinstance(value, Node):
        return [value]
    return [node for one in value for node in _nodes_in(one)] if isinstance(value, list | tuple) else []


def _told(made: Trace) -> list[tuple[str, str, str, str]]:
    return [(node.op, str(node.target), repr(node.args), repr(node.kwargs)) for node in made.graph.nodes]
