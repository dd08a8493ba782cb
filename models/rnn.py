"""Recurrent language model: what was read so far, in a hidden state, predicts the next symbol."""

from __future__ import annotations

from torch import Tensor, nn

from tuner.models.language_model import LanguageModel, State
from tuner.models.layers.activations import initialise
from tuner.models.layers.lookup import check_range
from tuner.models.layers.recurrent import Recurrent


class RNNLanguageModel(LanguageModel):
    """A model of the next symbol by `depth` recurrent layers.

    X_t is the symbol, one-hot or embedded; H_t = φ(X_t W_xh + H_{t-1} W_hh + b_h) for a vanilla RNN; O_t = H_t W_hq +
    b_q are the logits (documented.md §7). The parameters do not grow with the number of steps. Gradients are clipped
    to a norm of 1 unless told otherwise, because through time they explode. Dropout acts between layers, not through
    time (Zaremba et al., 2014), and does nothing at inference.

    Symbols of shape (B, T), logits of shape (B, T, vocab_size). Source: Elman (1990), Mikolov et al. (2010).

    Args:
        hidden_units: units of each layer, at least 1.
        depth: number of recurrent layers, at least 1.
        cell: `rnn`, `gru` or `lstm`.
        embedding_units: size of the learnt vector of each symbol; 0 feeds symbols one-hot.
        activation: φ of the `rnn`: `tanh`, `relu`, `leaky_relu`, `prelu` or `sigmoid`. `gru` and `lstm` have theirs by
            definition, so it must be `tanh` there. All but `tanh` and `relu` are several times slower.
        norm: `none`, `layer`, `group` or `batch`, between each affine map and its activation, in every step; several
            times slower than `none`. `layer` is the one for RNNs: `batch` mixes texts and steps.
        dropout: probability with which a layer's outputs are dropped in training, in [0, 1).
        norm_groups: groups of the `group` normaliser, or the next smaller number that divides the units.

    The other arguments are those of `Network` and `LanguageModel`.

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """

    def __init__(
        self,
        hidden_units: int = 256,
        depth: int = 1,
        cell: str = "rnn",
        embedding_units: int = 0,
        activation: str = "tanh",
        norm: str = "none",
        dropout: float = 0.0,
        norm_groups: int = 8,
        learning_rate: float = 2e-3,
        optimizer: str = "adam",
        momentum: float = 0.9,
        nesterov: bool = False,
        lr_schedule: str = "exponential",
        lr_decay: float = 0.95,
        lr_step: int = 10,
        weight_decay: float = 1e-6,
        penalty: float = 0.0,
        penalty_p: float = 2.0,
        clip_norm: float | None = 1.0,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_eps: float = 1e-8,
        mc_samples: int = 0,
        carry_state: bool = True,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_range("hidden_units", hidden_units, 1)
        check_range("depth", depth, 1)
        check_range("embedding_units", embedding_units, 0)
        check_range("dropout", dropout, 0, 1)
        check_range("norm_groups", norm_groups, 1)
        Recurrent(cell, 1, 1, activation, norm)  # its errors, at birth
        self.prepare()

    def build(self, vocab_size: int) -> nn.Module:
        """The embedding, the recurrent layers, and the output."""
        h = self.hparams
        inputs, layers = h["embedding_units"] or vocab_size, nn.ModuleList()
        for _ in range(h["depth"]):
            layers.append(Recurrent(h["cell"], inputs, h["hidden_units"], h["activation"], h["norm"], h["norm_groups"]))
            inputs = h["hidden_units"]
        return _Stack(vocab_size, h["embedding_units"], layers, h["dropout"], h["hidden_units"])


class _Stack(nn.Module):
    """Symbols (B, T) and state to logits (B, T, V) and state."""

    def __init__(self, vocab_size: int, embedding: int, layers: nn.ModuleList, dropout: float, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding) if embedding else None
        self.layers = layers
        self.dropout = nn.Dropout(dropout)
        self.output = initialise(nn.Linear(units, vocab_size), "linear")

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read x; no state is a state of zeros."""
        hidden = x if self.embedding is None else self.embedding(x)  # symbols, or vectors
        after: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            hidden, last = layer(hidden, None if state is None else state[i])
            hidden = self.dropout(hidden)
            after.append(last)
        logits: Tensor = self.output(hidden)
        return logits, after
