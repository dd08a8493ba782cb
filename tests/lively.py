"""Modules and data that use much of what Lightning offers; built by class path in the tests of the lean loop."""

from __future__ import annotations

import contextlib
import copy
import operator
import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
import torchmetrics
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, Subset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision

Loader = DataLoader[Any]

# ---- data ------------------------------------------------------------------------------------------------------------


def points(count: int, seed: int = 1) -> TensorDataset:
    """Points around two centres, and which one each belongs to."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    return TensorDataset(torch.randn(count, 2, generator=draw) + labels[:, None], labels)


class Points(L.LightningDataModule):
    """Thirty-three points in training, so that the last batch is smaller, and twelve in validation.

    Args:
        batch_size: in training.
        drop_last: whether training drops a smaller batch.
        shuffle_validation: draw an order for validation, too.
        own_generator: give the training loader a generator of its own.
        dataset: `tensors`, or another way to hold them.
        validations: how many loaders validation has.
    """

    def __init__(
        self,
        batch_size: int = 6,
        drop_last: bool = False,
        shuffle_validation: bool = False,
        own_generator: bool = False,
        dataset: str = "tensors",
        validations: int = 1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.drop_last, self.validations = batch_size, drop_last, validations
        self.shuffle_validation = shuffle_validation
        self.generator = torch.Generator().manual_seed(5) if own_generator else None
        self.kind = dataset

    def train_dataloader(self) -> Loader:
        dataset: Dataset[Any] = points(33)
        if self.kind == "subset":
            dataset = Subset(dataset, list(range(0, 33, 2)))
        elif self.kind == "items":
            dataset = Items(33)
        elif self.kind == "strided":
            dataset = TensorDataset(points(33).tensors[0].t().contiguous().t(), points(33).tensors[1])
        return DataLoader(dataset, self.batch_size, shuffle=True, drop_last=self.drop_last, generator=self.generator)

    def val_dataloader(self) -> Loader | list[Loader]:
        loaders = [
            DataLoader(points(12 - 2 * i, 2 + i), 5 - i, shuffle=self.shuffle_validation)
            for i in range(self.validations)
        ]
        return loaders if self.validations > 1 else loaders[0]


class Items(Dataset[tuple[Tensor, int]]):
    """Points, each moved by a random number when it is read."""

    def __init__(self, count: int) -> None:
        self.points = points(count)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x, y = self.points[index]
        return x + 0.1 * torch.randn(2) + 0.1 * random.gauss(0, 1) + 0.1 * np.random.rand(), int(y)


class Cached:
    """The same batches at each pass, in an order drawn when the pass begins."""

    def __init__(self, kind: str, shuffle: bool = True) -> None:
        x, y = points(24).tensors
        self.batches = [wrapped(kind, x[i : i + 6].clone(), y[i : i + 6].clone()) for i in range(0, 24, 6)]
        self.shuffle = shuffle

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self)).tolist() if self.shuffle else range(len(self))
        return iter([self.batches[i] for i in order])


CONTAINERS = ("list", "tuple", "dict", "nested", "text first", "dataclass")


@dataclass
class Pair:
    """A batch as a dataclass."""

    x: Tensor
    y: Tensor


def wrapped(kind: str, x: Tensor, y: Tensor) -> Any:
    """A batch in a container."""
    match kind:
        case "list":
            return [x, y]
        case "tuple":
            return x, y
        case "dict":
            return {"x": x, "y": y}
        case "nested":
            return [{"x": x, "names": ["a", "b"]}, (y, 7)]
        case "text first":
            return {"id": ["a"] * 6, "x": x, "y": y}
        case _:
            return Pair(x, y)


def unwrapped(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch in any of the containers."""
    if isinstance(batch, Pair):
        return batch.x, batch.y
    if isinstance(batch, Mapping):
        return batch["x"], batch["y"]
    if isinstance(batch[0], Mapping):
        return batch[0]["x"], batch[1][0]
    return batch[0], batch[1]


class CachedBatches(L.LightningDataModule):
    """Batches in a container that come again at each pass.

    Args:
        kind: of container.
    """

    def __init__(self, kind: str = "list") -> None:
        super().__init__()
        self.kind = kind

    def train_dataloader(self) -> Cached:
        return Cached(self.kind)

    def val_dataloader(self) -> Cached:
        return Cached(self.kind, shuffle=False)


class ByEpoch(Sampler[int]):
    """An order that depends on the epoch."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch = count, -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.count, generator=torch.Generator().manual_seed(10 + self.epoch)).tolist())


class Sampled(L.LightningDataModule):
    """Points in orders that depend on the epoch, in training and in validation."""

    def train_dataloader(self) -> Loader:
        return DataLoader(points(33), 6, sampler=ByEpoch(33))

    def val_dataloader(self) -> Loader:
        return DataLoader(points(12), 5, sampler=ByEpoch(12))


class Augmented(Points):
    """Points that the data module itself moves."""

    def on_before_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return [batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]]

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return [batch[0] * (2.0 if self.trainer is not None and self.trainer.training else 1.0), batch[1]]


# ---- modules ---------------------------------------------------------------------------------------------------------


class Net(L.LightningModule):
    """One hidden layer, with dropout and batch normalisation, and whatever a subclass changes."""

    def __init__(self, width: int = 4, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.25), nn.Linear(width, 2)
        )

    def loss(self, batch: Any) -> Tensor:
        x, y = unwrapped(batch)
        return F.cross_entropy(self.layers(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Twice(torch.optim.SGD):
    """Computes its gradients twice a step, and takes the second ones."""

    def step(self, closure: Any = None) -> Any:
        closure()
        return super().step(closure)


class Optimised(Net):
    """Answers `configure_optimizers` in every form that Lightning reads.

    Args:
        form: which.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.steps = 0

    def rounds(self) -> tuple[int, int]:
        return self.global_step, self.steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.steps += 1
        self.log("rate", self.optimizers().param_groups[0]["lr"], on_step=True, on_epoch=True)
        self.log("same_rate", self.trainer.optimizers[0].param_groups[0]["lr"], reduce_fx="max", on_epoch=True)
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        stairs = lr_scheduler.StepLR(optimizer, 1, 0.5) if self.form != "plateau of steps" else None
        match self.form:
            case "list":
                return [optimizer]
            case "dict":
                return {"optimizer": optimizer}
            case "dict with schedule":
                return {"optimizer": optimizer, "lr_scheduler": stairs}
            case "dict with step schedule":
                each = {"scheduler": stairs, "interval": "step", "frequency": 2, "name": "stairs"}
                return {"optimizer": optimizer, "lr_scheduler": each}
            case "two lists":
                return [optimizer], [stairs]
            case "two lists with dicts":
                slow = {"scheduler": lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "epoch", "frequency": 2}
                return [optimizer], [{"scheduler": stairs, "interval": "step", "frequency": 3}, slow]
            case "list of dicts":
                return [{"optimizer": optimizer, "lr_scheduler": stairs}]
            case "plateau":
                plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
                return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_loss"}
            case "plateau of steps":
                plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
                each = {"scheduler": plateau, "interval": "step", "monitor": "train_loss", "frequency": 2}
                return {"optimizer": optimizer, "lr_scheduler": each}
            case "plateau of nothing":
                plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
                each = {"scheduler": plateau, "monitor": "nothing", "strict": False}
                return {"optimizer": optimizer, "lr_scheduler": each}
            case "one cycle":
                steps = int(self.trainer.estimated_stepping_batches)
                cycle = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
                return [optimizer], [{"scheduler": cycle, "interval": "step"}]
            case "hooked":
                optimizer.register_step_pre_hook(
                    lambda *_: SEEN.append(("before", self._current_fx_name, self.rounds()))
                )
                optimizer.register_step_post_hook(
                    lambda *_: SEEN.append(("after", self._current_fx_name, self.rounds()))
                )
                return optimizer
            case "patched":
                step, zero_grad = optimizer.step, optimizer.zero_grad
                optimizer.step = lambda closure: (step(closure), step())[0]  # type: ignore[method-assign,assignment]
                optimizer.zero_grad = lambda: (SEEN.append(self.rounds()), zero_grad())  # type: ignore[method-assign]
                return optimizer
            case "own":
                return Twice(self.parameters(), self.lr)
            case "lbfgs":
                return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)
            case _:
                groups = [{"params": [p], "lr": 0.01 * i} for i, p in enumerate(self.parameters())]
                return torch.optim.RMSprop(groups)


class Returning(Net):
    """A step that returns a dict with more than the loss, and every third time nothing."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return None if batch_idx % 3 == 1 else {"loss": loss, "extra": loss.detach() * 2}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("extra", outputs["extra"] if outputs else 0.0, on_step=True, on_epoch=True)
        self.log("kept", outputs["loss"] if outputs else -1.0, on_step=False, on_epoch=True)


class LeavingOut(Net):
    """Leaves the rest of the second epoch out after two batches."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        self.log("begun", batch_idx, on_step=True, on_epoch=True)
        return -1 if self.current_epoch == 1 and batch_idx == 2 else None


class Stopping(Net):
    """Asks to stop in the middle of the second epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1 and batch_idx == 2:
            self.trainer.should_stop = True
        return super().training_step(batch, batch_idx)


class StoppingBetween(Net):
    """Asks to stop before the third epoch has a batch; its rate follows a metric."""

    def on_train_epoch_start(self) -> None:
        self.trainer.should_stop = self.current_epoch == 2

    def on_train_epoch_end(self) -> None:
        self.log("rate", self.optimizers().param_groups[0]["lr"])

    def on_train_end(self) -> None:
        self.layers[0].weight.data[0, 0] = self.optimizers().param_groups[0]["lr"]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
        return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_loss"}


class Tampering(Net):
    """Changes its loss in place where it can."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.kept = self.loss(batch)
        return self.kept

    def on_before_backward(self, loss: Tensor) -> None:
        loss.mul_(2)
        self.log("kept", self.kept, on_step=False, on_epoch=True)
        self.log("doubled", loss, on_step=False, on_epoch=True)

    def on_after_backward(self) -> None:
        self.kept.data.mul_(3)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("put out", outputs["loss"], on_step=False, on_epoch=True)


class Unpicklable(Net):
    """Keeps a hyperparameter that no file can hold."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.hparams["activation"] = lambda x: x


class Random(Net):
    """Draws from all generators in its steps, and moves a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(2))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> list[Tensor]:
        return [batch[0] + 0.1 * random.gauss(0, 1), batch[1]]

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        noise = torch.from_numpy(np.random.randn(*x.shape)).float()
        if self.training:
            self.mean += 0.1 * (x.mean(0) - self.mean)
        return F.cross_entropy(self.layers(x - self.mean + 0.1 * noise), y)


class Popping(Net):
    """Takes its batches apart."""

    def loss(self, batch: Any) -> Tensor:
        y = batch.pop() if isinstance(batch, list) else batch.pop("y")
        x = batch.pop() if isinstance(batch, list) else batch.pop("x")
        return F.cross_entropy(self.layers(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, batch_size=6)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), batch_size=6)


class Several(Net):
    """Validates on several loaders, with their number in the name or without."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log(f"own_{dataloader_idx}", loss * 2, add_dataloader_idx=False)
        if dataloader_idx == 0:
            self.log("val_loss", loss, add_dataloader_idx=False)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("number", float(dataloader_idx + batch_idx), reduce_fx="sum")

    def on_validation_epoch_end(self) -> None:
        self.log("all", self.trainer.callback_metrics["loss/dataloader_idx_0"] * 3)


class Measured(Net):
    """Logs torchmetrics: an object at steps and epochs, one at epochs, and a collection."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(2)
        self.loss_mean = torchmetrics.MeanMetric()
        each = {"precise": MulticlassPrecision(2), "right": MulticlassAccuracy(2, average="micro")}
        self.both = torchmetrics.MetricCollection(each, prefix="val_")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        outputs = self.layers(x)
        loss = F.cross_entropy(outputs, y)
        self.accuracy(outputs, y)
        self.loss_mean.update(loss, len(y))
        self.log("train_accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log("train_mean", self.loss_mean, on_step=False, on_epoch=True)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.both.update(self.layers(batch[0]), batch[1])
        self.log_dict(self.both, on_step=False, on_epoch=True)
        super().validation_step(batch, batch_idx)


class Clipping(Net):
    """Clips by a norm of its own, through Lightning, and then once more."""

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val or 0.05, gradient_clip_algorithm or "norm")
        self.log("norm", torch.stack([p.grad.norm() for p in self.parameters() if p.grad is not None]).norm())


class Overriding(Net):
    """Warms the rate up in `optimizer_step`, doubles gradients in `backward`, zeroes them in place, steps schedules."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, (self.trainer.global_step + 1) / 7)
        self.log("before", float(batch_idx), on_step=True, on_epoch=True)
        optimizer.step(closure=optimizer_closure)
        self.log("after", float(epoch), on_step=True, on_epoch=True)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.log("backwards", loss, on_step=False, on_epoch=True)
        (2 * loss).backward()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()
        self.stepped = getattr(self, "stepped", 0) + 1

    def on_train_epoch_end(self) -> None:
        self.log("stepped", float(getattr(self, "stepped", 0)))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adagrad(self.parameters(), lr=self.lr)
        return [optimizer], [{"scheduler": lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}]


class Modes(Net):
    """Keeps its batch normalisation frozen, and validates with dropout on."""

    def on_train_start(self) -> None:
        self.layers[1].eval()

    def on_validation_model_eval(self) -> None:
        super().on_validation_model_eval()
        self.layers[3].train()

    def on_validation_start(self) -> None:
        self.log("dropping", float(self.layers[3].training))

    def on_train_epoch_end(self) -> None:
        self.log("modes", float(sum(module.training << i for i, module in enumerate(self.modules()))))


class ModesOfItsOwn(Modes):
    """Comes back from validation in a mode of its own."""

    def on_validation_model_train(self) -> None:
        self.train()
        self.layers[3].eval()


class Late(L.LightningModule):
    """Builds itself late, from the data, and has data of its own."""

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self, stage: str) -> None:
        assert self.prepared
        assert stage == "fit"
        torch.randn(3)

    def configure_model(self) -> None:
        self.net = nn.Linear(2, 2)

    def train_dataloader(self) -> Loader:
        torch.randn(1)
        return DataLoader(points(20), 7, shuffle=True)

    def val_dataloader(self) -> Loader:
        torch.randn(2)
        return DataLoader(points(9, 3), 4)

    def training_step(self, batch: Any) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class Curious(Net):
    """Looks at its trainer wherever the lean loop lets it, and logs what it sees."""

    def note(self, where: str) -> None:
        trainer = self.trainer
        seen = (
            isinstance(trainer, L.Trainer),
            self.global_rank + self.local_rank + trainer.world_size + len(trainer.loggers) + len(trainer.device_ids),
            self.logger is None and trainer.logger is None and trainer.is_global_zero,
            trainer.training + 2 * trainer.validating + 4 * trainer.sanity_checking + 8 * trainer.evaluating,
            str(trainer.state.stage),
            str(trainer.state.fn),
            self.current_epoch,
            self.global_step,
            trainer.max_epochs,
            trainer.min_epochs,
            trainer.max_steps,
            trainer.min_steps,
            trainer.num_training_batches,
            trainer.num_val_batches,
            trainer.is_last_batch,
            trainer.gradient_clip_val,
            trainer.gradient_clip_algorithm,
            trainer.accumulate_grad_batches,
            trainer.check_val_every_n_epoch,
            trainer.val_check_interval,
            trainer.limit_train_batches,
            trainer.limit_val_batches,
            trainer.default_root_dir,
            trainer.log_dir,
            trainer.fast_dev_run,
            trainer.precision,
            str(trainer.strategy.root_device),
            trainer.lightning_module is self,
            trainer.model is self,
            type(trainer.datamodule).__name__,
            type(trainer.train_dataloader).__name__,
            type(trainer.val_dataloaders).__name__,
            len(trainer.optimizers),
            [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs],
            type(self.lr_schedulers()).__name__,
            str(self.device),
            str(self.dtype),
            {name: float(value) for name, value in trainer.callback_metrics.items()},
            {name: float(value) for name, value in trainer.logged_metrics.items()},
            float(self.all_gather(torch.ones(()))) if where == "training_step" else None,
        )
        SEEN.append((where, seen))

    def setup(self, stage: str) -> None:
        self.note("setup")

    def on_fit_start(self) -> None:
        self.note("on_fit_start")

    def on_train_start(self) -> None:
        self.note("on_train_start")

    def on_train_epoch_start(self) -> None:
        self.note("on_train_epoch_start")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.note("training_step")
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("silent", loss, logger=False, on_step=True)
        self.note("after logging")
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.note("on_train_batch_end")

    def on_validation_start(self) -> None:
        self.note("on_validation_start")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.note("validation_step")
        loss = self.loss(batch)
        self.log("val_loss", loss, on_step=True, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        self.note("on_validation_epoch_end")
        self.log("val_more", 2.0)

    def on_validation_end(self) -> None:
        self.note("on_validation_end")

    def on_train_epoch_end(self) -> None:
        self.note("on_train_epoch_end")
        self.log("late", float(self.current_epoch))
        self.note("after the last logging")

    def on_train_end(self) -> None:
        self.note("on_train_end")

    def on_fit_end(self) -> None:
        SEEN.append(("on_fit_end", (self.current_epoch, self.global_step)))

    def configure_optimizers(self) -> Any:
        self.note("configure_optimizers")
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [lr_scheduler.ExponentialLR(optimizer, 0.9)]


class Listing(Net):
    """Lists all that its trainer shows, and its parts: the names that `NAMES` has, or, while it is empty, all."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 7:
            for part in ("", "strategy", "fit_loop", "fit_loop.epoch_loop"):
                owner = operator.attrgetter(part)(self.trainer) if part else self.trainer
                known = [name for kind in type(owner).__mro__ for name in vars(kind)]
                names = NAMES.setdefault(part, [name for name in (*vars(owner), *known) if not name.startswith("_")])
                SEEN.extend((part, name, simple(getattr(owner, name))) for name in names)
        return super().training_step(batch, batch_idx)


NAMES: dict[str, list[str]] = {}


def simple(value: Any) -> Any:
    """A value that can be compared between two trainings."""
    if isinstance(value, Tensor):
        return float(value)
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return [(key, simple(part)) for key, part in parts]
    if isinstance(value, int | float | str | torch.device | None):
        return repr(value)
    return "callable" if callable(value) else "an object"


SEEN: list[Any] = []
"""What `Curious` has seen, and which hooks of `Diarist` and `DiaristData` were called."""


class Logging(Net):
    """Logs in every hook that may, and in every way."""

    def everything(self, where: str, both: bool) -> None:
        ways: list[dict[str, Any]] = [{"on_step": False, "on_epoch": True}]
        if both:
            ways += [{"on_step": True, "on_epoch": False}, {"on_step": True, "on_epoch": True}, {}]
        for i, way in enumerate(ways):
            for reduce in ("mean", "min", "max", "sum", torch.mean, max):
                name = f"{where}/{i}/{reduce if isinstance(reduce, str) else reduce.__name__ + '()'}"
                self.log(name, torch.rand(()) - 0.5, reduce_fx=reduce, **way)
                self.log(name + "/sized", torch.rand(1, 1), reduce_fx=reduce, batch_size=3 + i, **way)
        self.log(f"{where}/number", random.gauss(0, 1), prog_bar=True)
        self.log(f"{where}/whole", 3)
        self.log(f"{where}/bool", True)
        self.log(f"{where}/numpy", np.float64(0.1))
        self.log(f"{where}/numpy32", np.float32(0.1))
        self.log(f"{where}/numpy_whole", np.int64(7))
        self.log(f"{where}/double", torch.rand((), dtype=torch.float64))
        self.log(f"{where}/half", torch.rand(()).half())
        self.log(f"{where}/brain", torch.rand(()).bfloat16())
        self.log(f"{where}/long", torch.tensor(2**24 + 1))
        self.log(f"{where}/true", torch.tensor(True))
        self.log(f"{where}/grad", self.layers[0].bias.sum(), rank_zero_only=True, sync_dist=True)
        self.log(f"{where}/huge", 1e300)
        self.log(f"{where}/negative_zero", -0.0)
        self.log("shared", torch.rand(()))
        self.log_dict({f"{where}/a": 0.1, f"{where}/b": torch.rand(())}, batch_size=2)

    def on_train_start(self) -> None:
        self.everything("train_start", False)

    def on_train_epoch_start(self) -> None:
        self.everything("train_epoch_start", False)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.everything("train_batch_start", True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx % 2 == 0:
            self.log("sometimes", float(batch_idx), on_step=True, on_epoch=True)
        self.everything("training_step", True)
        return super().training_step(batch, batch_idx)

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.everything("before_zero_grad", True)

    def on_before_backward(self, loss: Tensor) -> None:
        self.everything("before_backward", True)

    def on_after_backward(self) -> None:
        self.everything("after_backward", True)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.everything("before_optimizer_step", True)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.everything("train_batch_end", True)

    def on_train_epoch_end(self) -> None:
        self.everything("train_epoch_end", False)

    def on_validation_start(self) -> None:
        self.everything("validation_start", False)

    def on_validation_epoch_start(self) -> None:
        self.everything("validation_epoch_start", False)

    def on_validation_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.everything("validation_batch_start", True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.everything("validation_step", True)
        super().validation_step(batch, batch_idx)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.everything("validation_batch_end", True)

    def on_validation_epoch_end(self) -> None:
        self.everything("validation_epoch_end", False)


HOOKS = (
    "prepare_data",
    "setup",
    "configure_model",
    "configure_optimizers",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "on_train_batch_start",
    "optimizer_step",
    "training_step",
    "on_before_zero_grad",
    "optimizer_zero_grad",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "on_train_batch_end",
    "on_validation_model_zero_grad",
    "on_validation_model_eval",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "validation_step",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_validation_model_train",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
    "teardown",
    "zero_grad",
    "train",
    "eval",
    "to",
    "cpu",
    "train_dataloader",
    "val_dataloader",
    "on_save_checkpoint",
)


def noted(name: str, of: str) -> Any:
    """A hook that notes when it was called and with what, and does what the hook above it does."""

    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        trainer = self.trainer if of == "data" else self._trainer
        state = (trainer.current_epoch, trainer.global_step, str(trainer.state.stage)) if trainer else None
        shown = [repr(a) if isinstance(a, int | float | str | None) else _kind(a) for a in args]
        if isinstance(self, nn.Module):
            shown.append(f"{self.training} {self._current_fx_name} {torch.is_grad_enabled()}")
        SEEN.append((of, name, state, shown, sorted(kwargs)))
        return getattr(super(self.NOTED, self), name)(*args, **kwargs)

    hook.__name__ = name
    return hook


def _kind(argument: Any) -> str:
    return "callable" if callable(argument) and not isinstance(argument, nn.Module) else type(argument).__name__


class _Scheduled(Net):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        every = {"scheduler": lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step", "frequency": 2}
        plateau = {"scheduler": lr_scheduler.ReduceLROnPlateau(optimizer), "monitor": "val_loss", "strict": False}
        return [optimizer], [every, plateau]


class Diarist(_Scheduled):
    """Notes every hook."""


class DiaristData(Points):
    """Notes every hook of the data."""


Diarist.NOTED, DiaristData.NOTED = Diarist, DiaristData  # type: ignore[attr-defined]
for _name in HOOKS:
    if hasattr(L.LightningModule, _name) and not _name.endswith("_dataloader"):
        setattr(Diarist, _name, noted(_name, "module"))
    if hasattr(L.LightningDataModule, _name) and not _name.endswith("batch_to_device"):
        setattr(DiaristData, _name, noted(_name, "data"))


# ---- what the lean loop does not cover -------------------------------------------------------------------------------


class Reading(Net):
    """Does what the lean loop does not know.

    Args:
        what: an attribute of the trainer that it reads, or something else.
        epoch: in which epoch, counted from 0.
    """

    def __init__(self, what: str = "callbacks", epoch: int = 1) -> None:
        super().__init__()
        self.what, self.epoch = what, epoch

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == self.epoch and batch_idx == 1:
            self.look()
        return super().training_step(batch, batch_idx)

    def look(self) -> None:
        match self.what:
            case "hasattr":
                hasattr(self.trainer, "accelerator")
            case "except":
                try:
                    len(self.trainer.callbacks)
                except Exception:  # noqa: BLE001 - what users do
                    self.lr = 0.0
            case "bare except":
                try:
                    len(self.trainer.callbacks)
                except:  # noqa: E722 - what users do
                    self.layers[0].weight.data.zero_()
            case "set":
                self.trainer.max_epochs_seen = 3  # type: ignore[attr-defined]
            case "copy":
                copy.deepcopy(self)
            case "log outside":
                self._current_fx_name = None
                with contextlib.suppress(Exception):
                    self.log("outside", 1.0)
                self._current_fx_name = "training_step"
            case "log twice":
                self.log("twice", 1.0, on_step=False, on_epoch=True)
                with contextlib.suppress(Exception):
                    self.log("twice", 1.0, on_step=True, on_epoch=True)
            case "log precision":
                self.log("mixed", torch.ones(()), on_step=False, on_epoch=True)
                self.log("mixed", torch.ones((), dtype=torch.float64), on_step=False, on_epoch=True)
            case "log share":
                self.log("share", torch.ones(()), on_epoch=True, batch_size=0.5)  # type: ignore[arg-type]
            case "base log":
                L.LightningModule.log(self, "base", 1.0)
            case _:
                getattr(self.trainer, self.what)


READ = (
    "callbacks",
    "progress_bar_metrics",
    "hasattr",
    "except",
    "bare except",
    "set",
    "copy",
    "log outside",
    "log twice",
    "log precision",
    "log share",
    "base log",
)


class Manual(Net):
    """Optimises by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer, loss = self.optimizers(), self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class OwnLog(Net):
    """Logs everything twice as large."""

    def log(self, name: str, value: Any, **options: Any) -> None:
        super().log(name, value * 2, **options)


class OwnLogger(Net):
    """Has something else for a `log`."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Ignoring()  # type: ignore[method-assign,assignment]


class Ignoring:
    """Takes what is logged, and forgets it."""

    def __call__(self, name: str, value: Any) -> None:
        if name == "val_loss":
            raise RuntimeError("nothing is kept here")


class OwnCallbacks(Net):
    """Brings a callback, which lowers the rate."""

    def configure_callbacks(self) -> list[L.Callback]:
        return [Lowering()]


class Lowering(L.Callback):
    """Lowers the rate after each epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 0.1


class Idle(Net):
    """Has no optimiser."""

    def configure_optimizers(self) -> None:
        return None


class WithIterator(Net):
    """Takes its batches itself."""

    def training_step(self, dataloader_iter: Any) -> Tensor:
        batch, _, _ = next(dataloader_iter)
        loss = self.loss(batch)
        self.log("train_loss", loss, batch_size=6)
        return loss


class Odd(L.LightningDataModule):
    """Training data in a way that the lean loop does not read.

    Args:
        kind: which.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def train_dataloader(self) -> Any:
        plain: Loader = DataLoader(points(24), 6, shuffle=True)
        match self.kind:
            case "dict":
                return {"x": plain, "y": DataLoader(points(24, 2), 6)}
            case "list":
                return [plain, DataLoader(points(24, 2), 6)]
            case "combined":
                return CombinedLoader(plain, "max_size_cycle")
            case "unsized":
                return Unsized()
            case "short":
                return Short()
            case _:
                return DataLoader(Endless(), 6)

    def val_dataloader(self) -> Loader:
        return DataLoader(points(12, 2), 5)


class Unsized:
    """Batches, nobody knows how many."""

    def __iter__(self) -> Iterator[Any]:
        return iter(Cached("list", shuffle=False).batches)


class Short(Unsized):
    """Fewer batches than it says."""

    def __len__(self) -> int:
        return 5


class Endless(IterableDataset[Any]):
    """Points in a stream."""

    def __iter__(self) -> Iterator[Any]:
        x, y = points(24).tensors
        return iter(zip(x, y, strict=True))


class Containing(Net):
    """Takes the first batch of any container."""

    def loss(self, batch: Any) -> Tensor:
        while isinstance(batch, dict) or isinstance(batch[0], list | tuple):
            batch = batch["x"] if isinstance(batch, dict) else batch[0]
        return super().loss(batch)


class Watched(Net):
    """Trains otherwise when Lightning's loop is above it: only a comparison can find that."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        frame: Any = sys._getframe()
        while frame is not None and "training_epoch_loop" not in frame.f_code.co_filename:
            frame = frame.f_back
        return self.loss(batch) * (1.0 if frame is None else 0.5)


class WatchedInWeights(Watched):
    """The same, and logs nothing that tells."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", 1.0 / (1 + self.current_epoch))


class Restless(Net):
    """Never gives the same numbers twice."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch) * (1 + int.from_bytes(os.urandom(2)) / 2**16)


class Failing(Net):
    """Raises at some batch, counted from 0 through all epochs.

    Args:
        at: which.
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == self.at:
            raise ValueError("the shapes do not fit")
        return super().training_step(batch, batch_idx)


class Thawing(Net):
    """Trains its first layer from the second epoch on, and counts on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].requires_grad_(False)
        self.rounds = 0
        self.history: dict[str, list[float]] = {"losses": []}
        self.average: Tensor | None = None
        self.folder = object()

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.layers[0].requires_grad_(True)
            self.layers[1].eval()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.rounds += 1
        self.history["losses"].append(float(loss.detach()))
        self.average = loss.detach() if self.average is None else 0.9 * self.average + 0.1 * loss.detach()
        return loss * (1 + self.average + 0.01 * self.rounds + 0.1 * sum(self.history["losses"][-3:]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["more"] = {"rounds": self.rounds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert checkpoint["more"]["rounds"] > 0
