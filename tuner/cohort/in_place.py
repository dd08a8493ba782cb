"""A trace with fewer tensors: an operation writes to its operand where nobody reads that any more.

A tensor less is memory that stays in the cache, and what would be copied only to be changed is not. Numbers stay the
same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from tuner.cohort.trace import Trace, storage_of

_aten = torch.ops.aten

_SAME = ("add", "sub", "mul", "div")
_ALONE = ("exp", "log", "neg", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "relu", "leaky_relu", "elu", "silu")

_IN_PLACE: Mapping[Any, Any] = (
    {getattr(_aten, name).Tensor: getattr(_aten, f"{name}_").Tensor for name in _SAME}
    | {getattr(_aten, name).Scalar: getattr(_aten, f"{name}_").Scalar for name in _SAME}
    | {getattr(_aten, name).default: getattr(_aten, f"{name}_").default for name in _ALONE}
    | {
        _aten.clamp.default: _aten.clamp_.default,
        _aten.clamp_min.default: _aten.clamp_min_.default,
        _aten.scatter_add.default: _aten.scatter_add_.default,
        _aten.masked_fill.Scalar: _aten.masked_fill_.Scalar,
    }
)
"""Operations by themselves, and as they are called to change their first argument."""

_INTO: Mapping[Any, tuple[Any, str]] = {
    _aten.threshold_backward.default: (_aten.threshold_backward.grad_input, "grad_input"),
    _aten.tanh_backward.default: (_aten.tanh_backward.grad_input, "grad_input"),
    _aten.sigmoid_backward.default: (_aten.sigmoid_backward.grad_input, "grad_input"),
}
"""Operations that change their first argument when that is also named as where to write."""


_COMMUTES = (_aten.add.Tensor, _aten.mul.Tensor)


def write_in_place(made: Trace) -> None:
    """Have operations of a trace write to operands that nobody reads afterwards."""
    order = {node: number for number, node in enumerate(made.graph.nodes)}
    memory = _Memory(made, order)

    def ends(operand: Any, node: Node) -> bool:
        """Whether a node may write its result where an operand of its is."""
        given = [one for one in (*node.args, *node.kwargs.values()) if isinstance(one, Node)]
        return (
            isinstance(operand, Node)
            and given.count(operand) == 1
            and _alike(made.values[operand], made.values[node])
            and memory.dies_at(operand, order[node])
            and not any(memory.shares(operand, other) for other in given if other is not operand)
        )

    for node in order:
        if node.target in _COMMUTES and not node.kwargs and not ends(node.args[0], node) and ends(node.args[1], node):
            node.args = (node.args[1], node.args[0])
        if (node.target in _IN_PLACE or node.target in _INTO) and ends(node.args[0], node):
            operand: Any = node.args[0]
            if node.target in _IN_PLACE:
                node.target = _IN_PLACE[node.target]
            else:
                node.target, name = _INTO[node.target]
                node.kwargs = {**node.kwargs, name: operand}
            memory.becomes(operand, node)


class _Memory:
    """Which nodes' tensors share memory, and until when it is read.

    Args:
        made: a trace, with the tensors that its nodes gave.
        order: where each node stands.
    """

    def __init__(self, made: Trace, order: Mapping[Node, int]) -> None:
        self._of = {node: storage_of(value) for node, value in made.values.items() if isinstance(value, Tensor)}
        self._read: dict[int, int] = {}  # by memory, where it is read for the last time
        self._given: set[int] = {0}
        self._now: dict[int, int] = {}
        for node, memory in self._of.items():
            if node.op in ("placeholder", "get_attr"):
                self._given.add(memory)
            last = max((order[user] for user in node.users), default=-1)
            self._read[memory] = max(self._read.get(memory, -1), last)

    def _found(self, node: Node) -> int:
        memory = self._of[node]
        while memory in self._now:
            memory = self._now[memory]
        return memory

    def dies_at(self, node: Node, number: int) -> bool:
        """Whether a node's memory is the trace's own, and read there for the last time."""
        memory = self._found(node)
        return memory not in self._given and self._read[memory] == number

    def shares(self, node: Node, other: Node) -> bool:
        """Whether two nodes share memory."""
        return other in self._of and self._found(node) == self._found(other)

    def becomes(self, operand: Node, node: Node) -> None:
        """Note that a node's tensor is its operand's from now on."""
        mine, its = self._found(operand), self._found(node)
        self._now[its] = mine
        self._read[mine] = self._read[its]


def _alike(a: Any, b: Any) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
    )
