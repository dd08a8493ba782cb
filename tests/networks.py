"""What the tests of the networks share: one thread, given batches, a lean fit, and the table of all final networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.models import MLP, DenseNet, LeNet, MLPRegressor, Network, ResNet, RNNLanguageModel
from tuner.training.blueprint import LEAN_TRAINER, quiet_lightning

Batch = tuple[Tensor, Tensor]


class Batches:
    """These batches, in this order, at each pass."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Given(L.LightningDataModule):
    """Given batches, and given shapes as attributes."""

    def __init__(self, train: Sequence[Batch], val: Sequence[Batch] | None = None, **shapes: Any) -> None:
        super().__init__()
        self.batches = {"train": Batches(train), "val": Batches(train if val is None else val)}
        for name, value in shapes.items():
            setattr(self, name, value)

    def train_dataloader(self) -> Batches:
        return self.batches["train"]

    def val_dataloader(self) -> Batches:
        return self.batches["val"]

    def test_dataloader(self) -> Batches:
        return self.batches["val"]

    def predict_dataloader(self) -> Batches:
        return self.batches["val"]


def lean(**arguments: Any) -> L.Trainer:
    """A trainer that does nothing beside training."""
    quiet_lightning()
    return L.Trainer(**{**LEAN_TRAINER, "accelerator": "cpu", "max_epochs": 1, **arguments})


def fitted(model: L.LightningModule, data: L.LightningDataModule, **arguments: Any) -> L.Trainer:
    trainer = lean(**arguments)
    trainer.fit(model, datamodule=data)
    return trainer


def of_type(module: nn.Module, kind: type[Any]) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def layers_of(model: Network) -> list[nn.Module]:
    """The layers of a network that is a sequence."""
    assert isinstance(model.net, nn.Sequential)
    return list(model.net)


def images(count: int) -> Batch:
    return torch.randn(count, 1, 8, 8), torch.arange(count) % 10


def vectors(count: int) -> Batch:
    return torch.randn(count, 12), torch.arange(count) % 10


def numbers(count: int) -> Batch:
    return torch.randn(count, 12), 50 + 20 * torch.randn(count)


def texts(count: int) -> Batch:
    symbols = torch.randint(7, (count, 9))
    return symbols[:, :-1], symbols[:, 1:]


IMAGES: Mapping[str, Any] = {"input_shape": [1, 8, 8], "num_classes": 10}
VECTORS: Mapping[str, Any] = {"input_shape": [12], "num_classes": 10}
NUMBERS: Mapping[str, Any] = {"input_shape": [12], "target_mean": 50.0, "target_std": 20.0}
TEXTS: Mapping[str, Any] = {"vocab_size": 7}

NORMS = ("batch", "layer", "group", "none")
CHANNEL_NORMS = ("batch", "layer", "group", "instance", "none")
PLAIN = ("relu", "leaky_relu", "prelu", "sigmoid", "tanh")


@dataclass(frozen=True)
class Case:
    """One row of the table: a final network, small, with batches that suit it.

    Attributes:
        model: the class.
        shapes: what it asks of the data.
        batch: that many samples.
        small: arguments of a small network.
        norms: all normalisers that its documentation names.
        activations: all activations that its documentation names.
    """

    model: type[Network]
    shapes: Mapping[str, Any]
    batch: Callable[[int], Batch]
    small: Mapping[str, Any]
    norms: Sequence[str]
    activations: Sequence[str] = field(default=(*PLAIN, "maxout"))

    def make(self, **arguments: Any) -> Any:
        """A small network with its shapes."""
        made: Any = self.model
        return made(**{**self.small, **self.shapes, **arguments})

    def unshaped(self, **arguments: Any) -> Any:
        """A small network that does not know its shapes."""
        made: Any = self.model
        return made(**{**self.small, **arguments})

    def data(self, batches: int = 3, size: int = 12) -> Given:
        return Given([self.batch(size) for _ in range(batches)], **self.shapes)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """What the documentation says the network descends."""
        x, y = batch
        out: Tensor = model(x)
        if self.model is MLPRegressor:
            error: Tensor = (out - y) / self.shapes["target_std"]
            return error.square().mean()
        return F.cross_entropy(out.flatten(0, -2), y.flatten())


CASES: Mapping[str, Case] = {
    "MLP": Case(MLP, VECTORS, vectors, {"hidden_units": 16}, NORMS),
    "MLPRegressor": Case(MLPRegressor, NUMBERS, numbers, {"hidden_units": 16}, NORMS),
    "LeNet": Case(LeNet, IMAGES, images, {"channels": 4, "hidden_units": 16}, CHANNEL_NORMS),
    "ResNet": Case(ResNet, IMAGES, images, {"hidden_units": 4}, CHANNEL_NORMS),
    "DenseNet": Case(DenseNet, IMAGES, images, {"hidden_units": 4, "depth": 2}, CHANNEL_NORMS, PLAIN),
    "RNN": Case(RNNLanguageModel, TEXTS, texts, {"hidden_units": 16, "cell": "rnn"}, NORMS, PLAIN),
    "GRU": Case(RNNLanguageModel, TEXTS, texts, {"hidden_units": 16, "cell": "gru"}, NORMS, ("tanh",)),
    "LSTM": Case(RNNLanguageModel, TEXTS, texts, {"hidden_units": 16, "cell": "lstm"}, NORMS, ("tanh",)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
