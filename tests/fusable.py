"""Modules and data of which tests make cohorts; built by class path. All compute in float64, so that errors show."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from tuner.data.loader import TensorLoader
from tuner.data.streams import Streams
from tuner.models import MLP, DenseNet, LeNet, MLPRegressor, ResNet, RNNLanguageModel

Batch = Any

ENDED: list[dict[str, Tensor]] = []
"""The weights with which trainings have ended, in the order of their ends."""


def note(module: L.LightningModule) -> None:
    """Add a module's weights to ENDED."""
    ENDED.append({name: tensor.detach().clone() for name, tensor in module.state_dict().items()})


# ---- data ------------------------------------------------------------------------------------------------------------


@lru_cache
def tensors(kind: str, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels, prepared once, as tuner's own data are."""
    draw = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 4
    shape = (1, 8, 8) if kind == "images" else (6,)
    inputs = torch.randn(count, *shape, generator=draw) + labels.view(-1, *(1,) * len(shape)) / 2
    return inputs, 50 + 20 * torch.randn(count, generator=draw) + 5 * labels if kind == "numbers" else labels


class Data(L.LightningDataModule):
    """Thirty samples in training, twelve in validation.

    Args:
        kind: `vectors`, `images` or `numbers`.
        batch_size: in training.
        loader: `indexed` is tuner's own, `torch` a DataLoader, `plain` some iterator over batches, `named` one over
            batches that are dictionaries.
        shuffled: whether validation draws an order, too.
        validations: how many loaders validation has.
    """

    input_shape: list[int]
    num_classes = 4
    target_mean, target_std = 55.0, 20.0

    def __init__(
        self,
        kind: str = "vectors",
        batch_size: int = 10,
        loader: str = "indexed",
        shuffled: bool = False,
        validations: int = 1,
    ) -> None:
        super().__init__()
        self.kind, self.batch_size, self.loader, self.shuffled = kind, batch_size, loader, shuffled
        self.validations = validations
        self.input_shape = [1, 8, 8] if kind == "images" else [6]

    def train_dataloader(self) -> Any:
        return self._loader(30, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        loaders = [self._loader(12, 5 if self.shuffled else 12, shuffle=self.shuffled) for _ in range(self.validations)]
        return loaders if self.validations > 1 else loaders[0]

    def _loader(self, count: int, batch_size: int, *, shuffle: bool) -> Any:
        held = tensors(self.kind, count)
        if self.loader == "torch":
            return DataLoader(TensorDataset(*held), batch_size, shuffle=shuffle)
        if self.loader == "indexed":
            return TensorLoader(held, batch_size, shuffle=shuffle)
        return Plain(held, batch_size, shuffle, named=self.loader == "named")


class Noisy(Data):
    """Brings batches to the device in its own way."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Any:
        return [batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]]


class Plain:
    """A loader of somebody's own, which draws its order when a pass begins, from torch's generator and Python's."""

    def __init__(self, held: tuple[Tensor, Tensor], batch_size: int, shuffle: bool, named: bool) -> None:
        self.held, self.batch_size, self.shuffle, self.named = held, batch_size, shuffle, named

    def __len__(self) -> int:
        return len(self.held[0]) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        count = len(self.held[0])
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        if self.shuffle:
            order = order.roll(random.randrange(count))  # noqa: S311 - nothing secret
        for part in order.split(self.batch_size):
            batch = [tensor[part] for tensor in self.held]
            yield {"x": batch[0], "y": batch[1]} if self.named else batch


class Symbols(L.LightningDataModule):
    """A few symbols, read in parallel streams."""

    vocab_size = 5

    def __init__(self, rows: int = 4, steps: int = 4) -> None:
        super().__init__()
        self.rows, self.steps = rows, steps

    def train_dataloader(self) -> Streams:
        return Streams(_symbols(), self.rows, self.steps, shift=True)

    def val_dataloader(self) -> Streams:
        return Streams(_symbols()[:33], 4, 4)


@lru_cache
def _symbols() -> Tensor:
    drawn = torch.randint(5, (56,), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(56) % 3 > 0, drawn.roll(1), drawn)


# ---- tuner's networks in float64 -------------------------------------------------------------------------------------


class Double:
    """A network in float64 whose last weights are noted."""

    def build(self, *args: Any, **kwargs: Any) -> nn.Module:
        net: nn.Module = super().build(*args, **kwargs)  # type: ignore[misc]
        return net.double()

    def on_fit_end(self: Any) -> None:
        note(self)


class DoubleClassifier(Double):
    def _step(self, batch: Batch, stage: str) -> Tensor:
        loss: Tensor = super()._step((batch[0].double(), batch[1]), stage)  # type: ignore[misc]
        return loss


class DoubleMLP(DoubleClassifier, MLP):
    pass


class DoubleLeNet(DoubleClassifier, LeNet):
    pass


class DoubleResNet(DoubleClassifier, ResNet):
    pass


class DoubleDenseNet(DoubleClassifier, DenseNet):
    pass


class DoubleRNNLanguageModel(Double, RNNLanguageModel):
    pass


class DoubleMLPRegressor(Double, MLPRegressor):
    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        error = self._standardised(x.double()) - (y.double() - self.hparams["target_mean"]) / self.hparams["target_std"]
        loss: Tensor = error.square().mean()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_mae": error.abs().mean()}, on_step=False, on_epoch=True)
        return loss


# ---- a module of somebody's own --------------------------------------------------------------------------------------


class Net(L.LightningModule):
    """One hidden layer, and arguments of every kind for its subclasses to use.

    Args:
        lr: the learning rate.
        momentum: of SGD.
        dropout: of the hidden units.
        width: of the hidden layer.
        strength: a number that subclasses read in a step.
        word: a word that they read.
        at: an epoch, counted from 1.
    """

    def __init__(
        self,
        lr: float = 0.1,
        momentum: float = 0.5,
        dropout: float = 0.0,
        width: int = 4,
        strength: float = 1.0,
        word: str = "",
        at: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.strength, self.word, self.at = strength, word, at
        self.layers = nn.Sequential(
            nn.Linear(6, width, bias=False),  # one in front of a normaliser would only drift with rounding
            nn.BatchNorm1d(width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, 4),
        ).double()

    def loss(self, batch: Batch) -> Tensor:
        x, y = batch.values() if isinstance(batch, dict) else batch
        return F.cross_entropy(self.layers(x.double()), y)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"], self.hparams.get("momentum", 0.5))

    def on_fit_end(self) -> None:
        note(self)


class Single(Net):
    """In float32, as most are."""

    def __init__(self, lr: float = 0.1, momentum: float = 0.5) -> None:
        super().__init__(lr, momentum)
        self.layers = self.layers.float()

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])


class Optimised(Net):
    """With the optimiser that the word names, or one in which something is unusual."""

    def configure_optimizers(self) -> Any:
        lr, groups = self.hparams["lr"], [{"params": [p]} for p in self.parameters()]
        groups[0]["lr"] = 2 * lr
        match self.word:
            case "groups":
                return torch.optim.Adam(groups, lr, weight_decay=0.01)
            case "amsgrad":
                return torch.optim.Adam(self.parameters(), lr, amsgrad=True)
            case "centred":
                return torch.optim.RMSprop(self.parameters(), lr, centered=True)
            case "RMSprop with momentum":
                return torch.optim.RMSprop(self.parameters(), lr, momentum=self.hparams["momentum"])
            case "maximising":
                return torch.optim.SGD(self.parameters(), lr / 100, maximize=True)
            case "torch's momentum":
                return torch.optim.SGD(self.parameters(), lr, momentum=0.9, dampening=0.3, weight_decay=0.01)
            case "hooked":
                optimizer = torch.optim.SGD(self.parameters(), lr)
                optimizer.register_step_pre_hook(self._shrink)
                return optimizer
            case "twice":
                return Twice(self.parameters(), lr)
            case "ahead":
                return Ahead(self.parameters(), lr)
            case "own":
                return Signs(self.parameters(), lr)
        return getattr(torch.optim, self.word)(self.parameters(), lr)

    def _shrink(self, *_: Any) -> None:
        self.layers[0].weight.data.mul_(0.9)


class Signs(torch.optim.Optimizer):
    """Descends along signs, by a share of the loss."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= 0.1 * group["lr"] * float(loss) * parameter.grad.sign()
        return loss


class Twice(Signs):
    """Computes the gradients twice."""

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            closure()
        return super().step(closure)


class Ahead(Signs):
    """Moves before it computes the gradients."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter *= 0.99
        return super().step(closure)


class Scheduled(Net):
    """With the schedule that the word names."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.hparams["lr"], self.hparams["momentum"])
        schedules = torch.optim.lr_scheduler
        match self.word:
            case "by epoch":
                return [optimizer], [schedules.StepLR(optimizer, 2, 0.3)]
            case "every second step":
                scheduler: Any = schedules.ExponentialLR(optimizer, 0.7)
                return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 2}]
            case "one cycle, by step":
                steps = int(self.trainer.estimated_stepping_batches)
                scheduler = schedules.OneCycleLR(optimizer, 5 * self.hparams["lr"], total_steps=steps)
                return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
            case "on plateau":
                scheduler = schedules.ReduceLROnPlateau(optimizer, factor=0.2, patience=0, threshold=0.05)
                return [optimizer], [{"scheduler": scheduler, "monitor": "val_loss"}]
        return optimizer


class Scheduling(Net):
    """Schedules by the number of the step."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.hparams["lr"], 0.5)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.optimizer.param_groups[0]["lr"] = self.hparams["lr"] / (1 + self.global_step)


class Turning(Net):
    """Its `val_loss` falls up to the epoch `at`, and rises from there on."""

    def __init__(self, lr: float = 0.1, momentum: float = 0.5, at: int = 0, width: int = 4) -> None:
        super().__init__(lr, momentum, at=at, width=width)
        self.epochs: Tensor
        self.turn: Tensor
        self.register_buffer("epochs", torch.zeros((), dtype=torch.float64))
        self.register_buffer("turn", torch.tensor(float(at), dtype=torch.float64))

    def on_train_epoch_start(self) -> None:
        self.epochs += 1

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("loss", self.loss(batch))
        self.log("val_loss", 1 + (self.epochs - self.turn).abs())


class Diverging(Net):
    """Its weights become NaN when the epoch `at` begins."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch + 1 == self.at:
            self.layers[0].weight.data.fill_(torch.nan)


class Raising(Net):
    """Raises in the hook that the word names, in the epoch `at`."""

    def _hook(self, name: str) -> None:
        if self.word == name and self.current_epoch + 1 == self.at:
            raise ValueError(f"raised in {name}")

    def on_train_epoch_start(self) -> None:
        self._hook("on_train_epoch_start")

    def on_train_epoch_end(self) -> None:
        self._hook("on_train_epoch_end")

    def on_validation_epoch_start(self) -> None:
        self._hook("on_validation_epoch_start")

    def on_validation_epoch_end(self) -> None:
        self._hook("on_validation_epoch_end")

    def on_fit_end(self) -> None:
        self._hook("on_fit_end")
        note(self)


class Hooked(Net):
    """Changes, between epochs, what the word names."""

    def __init__(self, lr: float = 0.1, word: str = "", strength: float = 1.0) -> None:
        super().__init__(lr, word=word, strength=strength)
        self.times = 1.0
        self.scale: Tensor
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.told: list[int] = []

    def on_train_epoch_start(self) -> None:
        epoch = self.current_epoch
        match self.word:
            case "a number in which all agree":
                self.times = 1.0 + epoch
            case "a number in which they differ":
                self.strength = self.strength * (1 + epoch)
            case "a hyperparameter":
                self.hparams["strength"] = self.hparams["strength"] * (1 + epoch)
            case "a buffer, assigned":
                self.scale = self.scale + self.strength
            case "weights, assigned":
                self.layers[0].weight.data = self.layers[0].weight.data * 0.5
            case "what is trained":
                self.layers[0].weight.requires_grad_(epoch < 1)
            case "a layer":
                self.layers[2] = nn.ReLU() if epoch else nn.Tanh()
            case "a list that no step reads":
                self.told = [*self.told, epoch]

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = self.loss(batch) * self.times * self.strength * self.scale * self.hparams["strength"]
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss


class Dropping(Net):
    """Built with dropout, and without it from the first epoch on."""

    def __init__(self, lr: float = 0.1, dropout: float = 0.5) -> None:
        super().__init__(lr, dropout=dropout)

    def on_train_epoch_start(self) -> None:
        self.layers[3].p = 0.0


class Counting(Net):
    """Assigns a buffer in its step."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.seen = self.seen + batch[0].sum().double()
        return super().training_step(batch, batch_idx)


class AsksLate(Net):
    """Asks, in the epoch `at`, for something that only Lightning's Trainer has."""

    def on_train_epoch_end(self) -> None:
        if self.current_epoch + 1 == self.at:
            self.trainer.profiler.describe()


class Lists(Hooked):
    """Reads the list that changes between epochs."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * len(self.told)


class Partial(Net):
    """Trains a part of its parameters: the word says what is special about the others."""

    def __init__(self, lr: float = 0.1, word: str = "") -> None:
        super().__init__(lr, word=word)
        self.spare = nn.Linear(6, 4, bias=False).double()
        self.register_parameter("none", None)
        self.tied = self.layers[4]
        if word == "frozen":
            self.layers[0].requires_grad_(False)

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss if self.word == "unused" else loss + 0.1 * self.spare(batch[0].double()).square().mean()

    def configure_optimizers(self) -> Any:
        if self.word == "in no group":
            return torch.optim.Adam(self.layers.parameters(), self.hparams["lr"] / 10, weight_decay=0.1)
        return torch.optim.Adam(self.parameters(), self.hparams["lr"] / 10, weight_decay=0.1)


class Losses(Net):
    """Its step returns a loss of another form."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss.reshape(1, 1) if self.word == "one" else torch.stack([loss, loss])

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        super().validation_step(batch, batch_idx)
        return {"something": 1}


class Keeps(Net):
    """Writes into a list in its step."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)
        self.told: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.told.append(1)
        return super().training_step(batch, batch_idx) / len(self.told)


class TwoLoaders(Net):
    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        self.log("val_other" if dataloader_idx else "val_loss", self.loss(batch), add_dataloader_idx=False)


class Ends(Net):
    def on_validation_batch_end(self, *_: Any) -> None:
        self.log("val_twice", 2.0)


class Clips(Net):
    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.clip_gradients(optimizer, 0.1 / (1 + self.current_epoch), "norm")


class Logs(Net):
    """Logs in many ways."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss.reshape(1), on_step=True, on_epoch=True)
        self.log("whole", 3, on_step=False, on_epoch=True)
        self.log("number", 0.1, on_step=False, on_epoch=True, reduce_fx="sum")
        self.log("count", (batch[1] == 1).sum(), on_step=False, on_epoch=True, reduce_fx=torch.max)
        self.log("weighted", loss, on_step=False, on_epoch=True, batch_size=7)
        self.log("twice", loss, on_step=False, on_epoch=True)
        self.log("twice", 2 * loss, on_step=False, on_epoch=True)
        return {"loss": loss, "others": 1}

    def on_train_epoch_end(self) -> None:
        self.log("epoch", float(self.current_epoch))


# What a cohort does not do


class ReadsEpoch(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) / (1 + self.current_epoch)


class ReadsStep(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) / (1 + self.global_step)


class ReadsTrainer(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) / self.trainer.max_epochs


class ReadsNumber(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (2 if batch_idx % 2 else 1)


class Asks(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss if loss.item() > 1 else 2 * loss


class Watches(Net):
    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            self.layers[4].bias.mul_(0.9)


class Manual(Net):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizer.step()


class ReadsWord(Net):
    """Reads an argument in its step: the attribute, or the hyperparameter."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (2.0 if self.word == "much" else 1.0)


class ReadsHyperparameter(Net):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (2.0 if self.hparams["word"] == "much" else 1.0)


class Measures(Net):
    """Its validation keeps a torchmetrics object."""

    def __init__(self, lr: float = 0.1, dropout: float = 0.0) -> None:
        super().__init__(lr, dropout=dropout)
        self.accuracy = MulticlassAccuracy(4)

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        super().validation_step(batch, batch_idx)
        self.accuracy(self.layers(batch[0].double()), batch[1])
        self.log("val_acc", self.accuracy)


class Measuring(Measures):
    """So does its training."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.accuracy(self.layers(batch[0].double()), batch[1])
        return super().training_step(batch, batch_idx)


class Plateau(Net):
    """Its learning rate follows a metric from step to step."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("step_loss", loss, on_step=True, on_epoch=False)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.hparams["lr"])
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return [optimizer], [{"scheduler": scheduler, "monitor": "step_loss", "interval": "step"}]


class Collects(Net):
    """Its validation collects what it finds in a list, as the manual of Lightning has it."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr)
        self.outputs: list[Tensor] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.outputs.append(self.loss(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.stack(self.outputs).mean())
        self.outputs.clear()


class AsksInValidation(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("val_loss", loss if loss.item() < 1 else 2 * loss)


class ReadsEpochInValidation(Net):
    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch) * (1 + self.current_epoch))


class Diary(L.Callback):
    """Somebody's own callback."""
