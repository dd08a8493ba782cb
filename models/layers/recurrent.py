"""Recurrent layer: the vanilla RNN of Elman (1990), the GRU of Cho et al. (2014), the LSTM of Hochreiter (1997)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models.layers.activations import activation as build_activation
from tuner.models.layers.lookup import lookup
from tuner.models.layers.normalisation import norm_1d

# How many affine maps of (X_t, H_{t-1}) a step makes, and how many tensors it hands on.
CELLS: Mapping[str, tuple[int, int]] = {"rnn": (1, 1), "gru": (3, 1), "lstm": (4, 2)}


class Recurrent(nn.Module):
    """One layer over T steps (documented.md §7).

    - `rnn`:  H_t = φ(norm(X_t W_xh + H_{t-1} W_hh + b_h))
    - `gru`:  R, Z = σ(norm(X_t W_x + H_{t-1} W_h + b)), N = tanh(norm(X_t W_xn + b_xn + R ⊙ (H_{t-1} W_hn + b_hn))),
      H_t = (1 - Z) ⊙ N + Z ⊙ H_{t-1}
    - `lstm`: I, F, O = σ(norm(…)), G = tanh(norm(…)), C_t = F ⊙ C_{t-1} + I ⊙ G, H_t = O ⊙ tanh(C_t)

    The parameters are those of torch's own layer (`cell.weight_ih_l0`, …), and do not grow with the number of steps.
    torch's kernels run it where they can: without normaliser, and for `rnn` with `tanh` or `relu`. Otherwise it is
    unrolled step by step, at several times the cost. Normalisers stand between an affine map and its activation, one
    for each affine map, shared by all steps. It does the same in training and at inference.

    Input weights start as Glorot's, recurrent ones orthogonal (Saxe et al., 2014), biases at 0 except the LSTM's forget
    gate at 1 (Jozefowicz et al., 2015).

    Shapes: x (B, T, inputs) and state (S, B, units) to (B, T, units) and state (S, B, units); S is 2 for `lstm`
    (hidden and cell), else 1. No state means zeros. Whole numbers x (B, T) stand for their one-hot vectors.

    Args:
        cell: `rnn`, `gru` or `lstm`.
        inputs: size of X_t.
        units: size of H_t.
        activation: φ of the `rnn`; the others have theirs by definition, so it must be `tanh` there.
        norm: `none`, `layer`, `group` or `batch`.
        norm_groups: groups of the `group` normaliser.
        unrolled: run step by step even where a kernel could do it.
    """

    def __init__(
        self,
        cell: str,
        inputs: int,
        units: int,
        activation: str = "tanh",
        norm: str = "none",
        norm_groups: int = 8,
        *,
        unrolled: bool = False,
    ) -> None:
        super().__init__()
        self.kind = cell
        maps, self.states = lookup(CELLS, cell, "cell")
        if activation == "maxout":
            raise ValueError("activation must keep the number of units in a recurrent layer, but got 'maxout'.")
        if cell != "rnn" and activation != "tanh":
            raise ValueError(f"activation must be 'tanh' for cell {cell!r}, by its definition, but got {activation!r}.")
        self.units = units
        self.cell: nn.RNNBase
        if cell == "rnn":
            self.cell = nn.RNN(inputs, units, nonlinearity="relu" if activation == "relu" else "tanh", batch_first=True)
        else:
            self.cell = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](inputs, units, batch_first=True)
        self.unrolled = unrolled or norm != "none" or activation not in ("tanh", "relu")
        self.activation = build_activation(activation) if cell == "rnn" else None
        self.norms = nn.ModuleList(norm_1d(norm, units, norm_groups) for _ in range(maps))
        self._initialise(maps)

    def _initialise(self, maps: int) -> None:
        for name, parameter in self.cell.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                continue
            for block in parameter.data.chunk(maps):
                drawn = torch.empty_like(block, dtype=torch.float32)  # half precision has no QR
                block.copy_((nn.init.xavier_uniform_ if name.startswith("weight_ih") else nn.init.orthogonal_)(drawn))
        if self.kind == "lstm":
            nn.init.ones_(self._weight("bias_ih_l0")[self.units : 2 * self.units])

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The hidden states of all steps, and the state to go on from."""
        weight = self._weight("weight_hh_l0")
        if state is None:
            state = weight.new_zeros(self.states, x.shape[0], self.units)
        if self.unrolled:
            return self._unroll(x, state)
        if not x.is_floating_point():
            x = F.one_hot(x, self.cell.input_size).to(weight.dtype)
        if self.kind == "lstm":
            out, (hidden, memory) = self.cell(x, (state[:1], state[1:]))
            return out, torch.cat([hidden, memory])
        out, state = self.cell(x, state)
        return out, state

    def _unroll(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self._weight("weight_hh_l0"), self._weight("bias_hh_l0")
        outputs = []
        for step in self._of_input(x).unbind(dim=1):
            state = self._step(step, F.linear(state[0], weight, bias), state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def preactivations(self, x: Tensor, state: Tensor | None, out: Tensor) -> Tensor:
        """What every step's affine maps gave in a pass that went by: X_t W_x + H_{t-1} W_h + b, before any normaliser.

        Args:
            x: the input of that pass, shape (B, T, inputs) or (B, T).
            state: the state that it started from.
            out: its output, shape (B, T, units).

        Returns:
            Shape (B, T, maps · units), the gates one after the other as torch has them.
        """
        start = out.new_zeros(x.shape[0], self.units) if state is None else state[0]
        before = torch.cat([start.unsqueeze(1), out[:, :-1]], dim=1)
        return self._of_input(x) + F.linear(before, self._weight("weight_hh_l0"), self._weight("bias_hh_l0"))

    def _of_input(self, x: Tensor) -> Tensor:
        """The affine map of every step's input at once, shape (B, T, maps · units)."""
        weight, bias = self._weight("weight_ih_l0"), self._weight("bias_ih_l0")
        # A one-hot vector times a matrix is a row of it.
        return F.linear(x, weight, bias) if x.is_floating_point() else F.embedding(x, weight.t()) + bias

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = getattr(self.cell, name)
        return weight

    def _step(self, x: Tensor, h: Tensor, state: Tensor) -> Tensor:
        """The next state (S, B, units) from both affine maps, each (B, maps · units)."""
        if self.activation is not None:
            hidden: Tensor = self.activation(self.norms[0](x + h))
            return hidden.unsqueeze(0)
        if self.kind == "gru":
            (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, dim=1), h.chunk(3, dim=1)
            reset = torch.sigmoid(self.norms[0](x_r + h_r))
            update = torch.sigmoid(self.norms[1](x_z + h_z))
            new = torch.tanh(self.norms[2](x_n + reset * h_n))
            return ((1 - update) * new + update * state[0]).unsqueeze(0)
        i, f, g, o = (norm(z) for norm, z in zip(self.norms, (x + h).chunk(4, dim=1), strict=True))
        memory = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.stack([torch.sigmoid(o) * torch.tanh(memory), memory])
