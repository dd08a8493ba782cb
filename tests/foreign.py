"""Modules as others write them, each with something that a shortcut might overlook; built by class path in tests."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 5
"""More than the lean loop tries out, so that what happens late is seen."""


class Blobs(L.LightningDataModule):
    """Forty points around two centres."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.batch_size = batch_size
        draw = torch.Generator().manual_seed(1)
        labels = torch.arange(40) % 2
        self.points = TensorDataset(torch.randn(40, 2, generator=draw) + labels[:, None], labels)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, 20)


class Callables(L.LightningModule):
    """Optimiser and schedule are given as LightningCLI gives them."""

    def __init__(
        self,
        width: int = 4,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=0.05),
        scheduler: LRSchedulerCallable | None = None,
        interval: str = "epoch",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 2))
        self.optimizer, self.scheduler, self.interval = optimizer, scheduler, interval

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        monitor = {"monitor": "val_loss"}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.interval, **monitor},
        }


class Late(Callables):
    """Something changes in the fourth epoch.

    Args:
        what: changes.
    """

    def __init__(self, what: str, lr: float = 0.3, dropout: float = 0.0) -> None:
        super().__init__(optimizer=lambda p: torch.optim.SGD(p, lr=lr), dropout=dropout)
        self.what = what

    def on_train_epoch_start(self) -> None:
        if self.current_epoch != 3:
            return
        match self.what:
            case "manual":
                self.automatic_optimization = False
            case "frozen":
                self.net[0].requires_grad_(False)
            case "rate":
                for group in self.optimizers().param_groups:
                    group["lr"] = 0.01
            case "step":
                self.training_step = self.other_step
            case "validation":
                self.validation_step = self.other_validation
            case "hook":
                self.on_after_backward = self.halved
            case "optimizer":
                self.optimizer_step = self.lazy
            case "layer":
                self.net.append(nn.Linear(2, 2))
            case "other layer":
                self.net[1] = nn.ReLU()
            case "swapped":
                self.trainer.optimizers = [torch.optim.Adam(self.parameters(), lr=0.05)]
            case "accumulated":
                self.trainer.accumulate_grad_batches = 2
            case "clipped":
                self.trainer.gradient_clip_val = 0.001
            case "fewer":
                self.trainer.fit_loop.max_epochs = 4

    def other_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return 0.1 * F.cross_entropy(self.net(batch[0]), 1 - batch[1])

    def other_validation(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", 2 * F.cross_entropy(self.net(batch[0]), batch[1]))

    def halved(self) -> None:
        for parameter in self.net.parameters():
            parameter.grad *= 0.5

    def lazy(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer_closure() if batch_idx % 2 else optimizer.step(closure=optimizer_closure)


class Within(Late):
    """Gets a hook in the middle of the fourth epoch."""

    def on_before_zero_grad(self, optimizer: Any) -> None:
        if self.global_step == 17:
            self.on_after_backward = self.halved


class Twice(torch.optim.SGD):
    """Steps as sharpness-aware minimisation does: the closure is called twice."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            closure()
        super().step()
        with torch.enable_grad():
            loss = closure()
        super().step()
        return loss


class Adversaries(L.LightningModule):
    """A generator and a discriminator, optimised by hand, as in Lightning's own example."""

    def __init__(self, latent: int = 2, lr: float = 0.01, b1: float = 0.5) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(latent, 8), nn.ReLU(), nn.Linear(8, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        real, _ = batch
        optimizer_g, optimizer_d = self.optimizers()
        z = torch.randn(len(real), self.hparams.latent)
        self.toggle_optimizer(optimizer_g)
        g_loss = F.softplus(-self.discriminator(self.generator(z))).mean()
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        optimizer_g.step()
        optimizer_g.zero_grad()
        self.untoggle_optimizer(optimizer_g)
        self.toggle_optimizer(optimizer_d)
        fake = self.generator(z).detach()
        d_loss = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(fake)).mean()
        self.log("d_loss", d_loss, prog_bar=True)
        self.manual_backward(d_loss)
        optimizer_d.step()
        optimizer_d.zero_grad()
        self.untoggle_optimizer(optimizer_d)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        z = torch.randn(len(batch[0]), self.hparams.latent)
        self.log("val_distance", (self.generator(z).mean(0) - batch[0].mean(0)).norm())

    def configure_optimizers(self) -> Any:
        betas = (self.hparams.b1, 0.999)
        of = [torch.optim.Adam(net.parameters(), lr=self.hparams.lr, betas=betas) for net in self.children()]
        return of, []


class Noisy(L.LightningModule):
    """Logs one name in training and in validation, and others in either."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr
        self.weight = nn.Parameter(torch.ones(()))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.weight.square()
        self.log("loss", 100 * loss, on_step=False, on_epoch=True)
        self.log("both", loss, on_step=True, on_epoch=True)
        self.log("last", float(batch_idx))
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", self.weight.detach())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Unvalidated(L.LightningModule):
    """Logs a loss of training alone, which is best in the third epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.epochs: Tensor
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(4, 1)), batch_size=2)

    def on_train_epoch_start(self) -> None:
        self.epochs += 1

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.log("train_loss", abs(self.epochs - 3.0), on_step=False, on_epoch=True)
        return self.weight.square()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)
