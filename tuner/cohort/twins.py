"""Layers that take another form in a cohort, with the same parameters, buffers and results.

- Dropout: each slice may have a rate of its own, which is a tensor then.
- torch's recurrent layers: their kernels have no batching rule, so they are unrolled step by step.
- Metrics of torchmetrics, which keep what they have seen: whoever calls one is refused.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection

from tuner.cohort.errors import NotFusable
from tuner.cohort.recurrence import elman
from tuner.models.layers.recurrent import Recurrent

State = tuple[Tensor, ...]
METRICS = (Metric, MetricCollection)


def twin_of(layer: nn.Module) -> nn.Module | None:
    """The layer's form in a cohort, or None where it does as it is. It owns the layer's parameters.

    Raises:
        NotFusable: the layer has no such form.
    """
    if type(layer) in _DROPOUTS:
        return DropoutTwin(layer.p, dims=_DROPOUTS[type(layer)])  # type: ignore[arg-type]
    if isinstance(layer, Recurrent):
        unrolled = copy.copy(layer)
        if layer.kind == "rnn" and not layer.unrolled:
            unrolled.__class__ = ElmanTwin
        unrolled.unrolled = True
        return unrolled
    if type(layer) in (nn.RNN, nn.GRU, nn.LSTM):
        return RecurrentTwin(layer)  # type: ignore[arg-type]
    if isinstance(layer, METRICS):
        return Refusing(type(layer).__name__)
    if isinstance(layer, nn.RNNBase):
        raise NotFusable(f"{type(layer).__name__} is a recurrent layer of its own kind")
    return None


def draws_itself(layer: nn.Module) -> bool:
    """Whether the layer draws random numbers, which its twin does in another way."""
    return type(layer) in _DROPOUTS or (isinstance(layer, nn.RNNBase) and layer.dropout > 0)


class DropoutTwin(nn.Module):
    """`nn.Dropout` and its relatives for whole channels, with a rate that may be a tensor.

    In training it keeps each value (or channel) with probability 1 - p, and divides by that; at inference it does
    nothing.

    Args:
        p: the rate, in [0, 1].
        dims: trailing dimensions that are dropped together; 0 is every value by itself.
    """

    def __init__(self, p: float | Tensor, dims: int) -> None:
        super().__init__()
        self.p = p
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not self.training:
            return x
        drawn = x
        for dim in range(1, self.dims + 1):
            drawn = drawn.narrow(-dim, 0, 1)
        p = torch.as_tensor(self.p, dtype=torch.float64)
        kind = torch.promote_types(x.dtype, torch.float32)  # what holds the numbers that are drawn
        below = torch.add(_LEAST, p, alpha=2**16).ceil().clamp(max=2**15 - 1) - 1
        kept = (_drawn(drawn).to(kind) - below.to(kind)).clamp(0, 1)  # in a third of the time of a comparison
        keep = 1 - p
        scale = keep / (keep * keep).clamp(min=1e-30)  # 0 where nothing is kept
        return x * (kept * scale.to(kind)).to(x.dtype)


_LEAST = torch.tensor(-(2.0**15), dtype=torch.float64)


def _drawn(like: Tensor) -> Tensor:
    """Whole numbers from -2¹⁵ to 2¹⁵ - 1, all as likely, of the same shape; four for one draw of the generator's."""
    several = torch.randint(-(2**63), 2**63 - 1, ((like.numel() + 3) // 4,), device=like.device)
    return several.view(torch.int16)[: like.numel()].view(like.shape)


_DROPOUTS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


class Refusing(nn.Module):
    """Stands where nothing may be called.

    Args:
        name: of what would be called.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise NotFusable(f"it calls {self.name}, which keeps what it has seen")

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name.startswith("_") else self()


class ElmanTwin(Recurrent):
    """A `Recurrent` of kind `rnn` without normaliser, by `elman`."""

    def _unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self._weight("weight_ih_l0"), self._weight("bias_ih_l0") + self._weight("bias_hh_l0")
        # The bias is added to the few rows that symbols choose from, not to every step's.
        mapped = F.linear(x, weight, bias) if x.is_floating_point() else F.embedding(x, weight.t() + bias)
        out = elman(mapped, state[0], self._weight("weight_hh_l0"), _ELMAN[self.cell.mode])
        return out, out[:, -1].unsqueeze(0)


_ELMAN = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}


class RecurrentTwin(nn.Module):
    """`nn.RNN`, `nn.GRU` or `nn.LSTM`, unrolled: any number of layers, both directions, projections.

    Args:
        layer: torch's own; its parameters are taken over under their names.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.mode, self.num_layers, self.batch_first = layer.mode, layer.num_layers, layer.batch_first
        self.bidirectional, self.hidden_size, self.proj_size = layer.bidirectional, layer.hidden_size, layer.proj_size
        self.has_bias, self.dropout = layer.bias, DropoutTwin(layer.dropout, dims=0)
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor, state: Tensor | State | None = None) -> tuple[Tensor, Tensor | State]:
        """Outputs and last state, as torch's layer gives them.

        Raises:
            NotFusable: the input is a packed sequence.
        """
        if not isinstance(x, Tensor):
            raise NotFusable("it packs sequences")
        alone = x.dim() == 2
        if alone:
            x = x.unsqueeze(0 if self.batch_first else 1)
        if not self.batch_first:
            x = x.transpose(0, 1)  # (B, T, inputs)
        states = self._start(x, state, alone)
        last: list[State] = []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                begun = tuple(part[index] for part in states)
                out, ended = self._run(x.flip(1) if direction else x, begun, f"l{layer}" + "_reverse" * direction)
                outputs.append(out.flip(1) if direction else out)
                last.append(ended)
            x = torch.cat(outputs, dim=2) if self.bidirectional else outputs[0]
            if layer < self.num_layers - 1 and self.dropout.p:
                x = self.dropout(x)
        ended_all = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        if not self.batch_first:
            x = x.transpose(0, 1)
        if alone:
            x = x.squeeze(0 if self.batch_first else 1)
            ended_all = tuple(part.squeeze(1) for part in ended_all)
        return x, ended_all if self.mode == "LSTM" else ended_all[0]

    def _start(self, x: Tensor, state: Tensor | State | None, alone: bool) -> State:
        if state is not None:
            states = (state,) if isinstance(state, Tensor) else tuple(state)
            return tuple(part.unsqueeze(1) for part in states) if alone else states
        count = self.num_layers * (2 if self.bidirectional else 1)
        hidden = x.new_zeros(count, x.shape[0], self.proj_size or self.hidden_size)
        return (hidden, x.new_zeros(count, x.shape[0], self.hidden_size)) if self.mode == "LSTM" else (hidden,)

    def _run(self, x: Tensor, state: State, suffix: str) -> tuple[Tensor, State]:
        weights = dict(self.named_parameters())
        bias_x, bias_h = (weights[f"bias_{of}_{suffix}"] if self.has_bias else None for of in ("ih", "hh"))
        if self.mode in _ELMAN:
            both = None if bias_x is None or bias_h is None else bias_x + bias_h
            mapped = F.linear(x, weights[f"weight_ih_{suffix}"], both)
            out = elman(mapped, state[0], weights[f"weight_hh_{suffix}"], _ELMAN[self.mode])
            return out, (out[:, -1],)
        mapped = F.linear(x, weights[f"weight_ih_{suffix}"], bias_x)  # every step's input at once
        outputs = []
        for step in mapped.unbind(dim=1):
            state = self._step(step, F.linear(state[0], weights[f"weight_hh_{suffix}"], bias_h), state)
            if self.proj_size:
                state = (F.linear(state[0], weights[f"weight_hr_{suffix}"]), state[1])
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def _step(self, x: Tensor, h: Tensor, state: State) -> State:
        if self.mode == "GRU":
            (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, dim=1), h.chunk(3, dim=1)
            update = torch.sigmoid(x_z + h_z)
            new = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
            return ((1 - update) * new + update * state[0],)
        i, f, g, o = (x + h).chunk(4, dim=1)
        memory = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(memory), memory
