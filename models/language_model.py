"""What every language model shares: sequences with carried state, perplexity, and writing on."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models.layers.lookup import check_range
from tuner.models.layers.modes import evaluating
from tuner.models.metrics import label_entropy, perplexity
from tuner.models.network import Network

Batch = tuple[Tensor, Tensor]
State = list[Tensor]
"""What is carried from batch to batch: tensors whose dimension 1 is the batch, such as (layers, B, units)."""


class LanguageModel(Network):
    """An abstract model of the next symbol: a final subclass owns `__init__` and `build`.

    Batches are (x, y), both of shape (B, T): symbols, and the ones that follow. With `carry_state` row b of a batch
    goes on where row b of the batch before ended (as `tuner.data.Text` gives them), so the state is carried from batch
    to batch, without its gradient, through an epoch.

    Logs `train_loss`, `val_loss`, `test_loss`, the mean cross-entropy of a symbol in nats (without penalty);
    `val_perplexity`, `test_perplexity`, its exponential over the whole split; and `val_label_entropy`, the
    cross-entropy of a model that knows nothing but how frequent the symbols are.

    Besides those of `Network` it takes these hyperparameters:

    Args:
        mc_samples: at prediction, average the probabilities of that many networks sampled by dropout; 0 predicts once.
        carry_state: whether batches continue each other; without it every sequence starts from zeros.
        vocab_size: V, the number of symbols; by default asked of the data module.
    """

    SHAPES = ("vocab_size",)

    def __init__(self) -> None:
        super().__init__()
        self._carried: State | None = None  # the training state, which a validation amid the epoch leaves alone
        self._evaluated: State | None = None
        self._nats = torch.zeros(())
        self._symbols = torch.zeros(0, dtype=torch.int64)

    @abstractmethod
    def build(self, vocab_size: int) -> nn.Module:
        """Build the network from (symbols of shape (B, T), `State` or None) to (logits of shape (B, T, V), `State`)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, T, V) of the next symbols, for sequences of shape (B, T), from a state of zeros."""
        return self.unroll(x)[0]

    def unroll(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of shape (B, T, V), and the state to go on from.

        Args:
            x: symbols of shape (B, T).
            state: what an earlier call returned for the same B rows; None is zeros.
        """
        logits, after = self.built()(x, state)
        return logits, after

    def generate(self, prompt: Tensor, length: int, temperature: float = 1.0) -> Tensor:
        """Write on: sample symbol after symbol, from torch's global generator.

        Args:
            prompt: at least one symbol, shape (T,).
            length: how many symbols to write, at least 0.
            temperature: divides the logits, above 0; towards 0 only the likeliest symbol is written.

        Returns:
            The symbols written, shape (length,).

        Raises:
            ValueError: an empty prompt, or a number outside its range.
        """
        if prompt.ndim != 1 or len(prompt) == 0:
            raise ValueError(f"prompt must have the shape (T,) with T at least 1, but got {tuple(prompt.shape)}.")
        check_range("length", length, 0)
        check_range("temperature", temperature, 0, low_included=False)
        written: list[Tensor] = [prompt[:0]]
        x, state = prompt.unsqueeze(0), None
        with evaluating(self), torch.no_grad():
            for _ in range(length):
                logits, state = self.unroll(x, state)
                x = torch.multinomial(torch.softmax(logits[:, -1] / temperature, dim=1), 1)
                written.append(x[0])
        return torch.cat(written)

    def _loss(self, batch: Batch, state: State | None) -> tuple[Tensor, State]:
        x, y = batch  # (B, T), (B, T)
        if not self.hyperparameter("carry_state") or (state is not None and state[0].shape[1] != len(x)):
            state = None
        logits, after = self.unroll(x, state)
        if any(s.ndim < 2 or s.shape[1] != len(x) for s in after):
            shapes = [tuple(s.shape) for s in after]
            raise ValueError(f"a state's dimension 1 must be the batch of {len(x)}, but got states of {shapes}.")
        return F.cross_entropy(logits.flatten(0, 1), y.flatten()), [s.detach() for s in after]

    def on_train_epoch_start(self) -> None:
        """The text begins anew."""
        self._carried = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the next symbols, plus the penalty."""
        loss, self._carried = self._loss(batch, self._carried)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=batch[1].numel())
        return self.penalised(loss)

    def _evaluate(self, batch: Batch, stage: str) -> None:
        loss, self._evaluated = self._loss(batch, self._evaluated)
        y = batch[1]
        self._nats = self._nats.to(loss.device) + loss * y.numel()
        ones = torch.ones_like(y.flatten())
        self._symbols = self._symbols.to(y.device).scatter_add(0, y.flatten(), ones)  # bincount has no batching rule
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=y.numel())

    def _begin_evaluation(self) -> None:
        self._evaluated = None
        self._nats = torch.zeros(())
        self._symbols = torch.zeros(self.hparams["vocab_size"], dtype=torch.int64)

    def _end_evaluation(self, stage: str) -> None:
        self._evaluated = None
        if self._symbols.sum() > 0:
            self.log(f"{stage}_perplexity", perplexity(self._nats / self._symbols.sum()), sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """The validation text begins."""
        self._begin_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the validation metrics of a batch."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the perplexity of the whole split, and the entropy of its symbols."""
        self._end_evaluation("val")
        if self._symbols.sum() > 0:
            self.log("val_label_entropy", label_entropy(self._symbols).float(), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """The test text begins."""
        self._begin_evaluation()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the test metrics of a batch."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the perplexity of the whole split."""
        self._end_evaluation("test")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Probabilities of the next symbols, shape (B, T, V), averaged over `mc_samples` sampled networks."""
        x = batch if isinstance(batch, Tensor) else batch[0]
        return self.averaged(lambda: torch.softmax(self(x), dim=2), self.hyperparameter("mc_samples"))
