"""Calling the hooks of a module and its data module as the Trainer does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tuner.data.prepared import PreparedData
from tuner.training.borrowed import is_overridden, move_data_to_device

RUNNING = "_current_fx_name"
"""Where a LightningModule keeps the name of the hook that runs, which tells `log` what is meant."""

EVERY_BATCH = (
    "on_train_batch_start",
    "on_train_batch_end",
    "optimizer_step",
    "on_before_zero_grad",
    "optimizer_zero_grad",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "clip_gradients",
    "on_validation_batch_start",
    "on_validation_batch_end",
)
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_CPU = torch.device("cpu")


class Hooks:
    """The hooks of a module, and of its data module if it has one.

    Attributes:
        running: the module's attributes; `running[RUNNING]` is the name of the hook that runs.
        own: the hooks of every batch that the module has itself; the others do nothing that the loop does not do.
    """

    def __init__(self, module: L.LightningModule, datamodule: L.LightningDataModule | None) -> None:
        self.module = module
        self.datamodule = datamodule
        self.running = vars(module)
        self.own: frozenset[str] = frozenset()
        self._transfer: tuple[Callable[..., Any] | None, ...] = (None, None, None)

    def look(self) -> None:
        """See which hooks of every batch there are; a module may change that between epochs."""
        self.own = self._own()
        self._transfer = tuple(map(self._transfer_hook, _TRANSFER))

    @property
    def changed(self) -> bool:
        """Whether there are others now than when `look` looked."""
        return self._own() != self.own

    def _own(self) -> frozenset[str]:
        return frozenset(name for name in EVERY_BATCH if replaced(self.module, L.LightningModule, name))

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a hook of the module."""
        hook = getattr(self.module, name)
        if not callable(hook):
            return None
        before = self.running[RUNNING]
        self.running[RUNNING] = name
        answer = hook(*args, **kwargs)
        self.running[RUNNING] = before
        return answer

    def call_data(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a hook of the data module, if there is one."""
        hook = getattr(self.datamodule, name, None)
        return hook(*args, **kwargs) if callable(hook) else None

    def source(self, name: str) -> Any:
        """What the data module, or the module where there is none, answers to a hook such as `train_dataloader`."""
        return self.call(name) if self.datamodule is None else self.call_data(name)

    def transferred(self, batch: Any, loader: int) -> Any:
        """The batch as the steps get it, after the hooks that bring it to the device."""
        before, move, after = self._transfer
        if before is not None:
            batch = before(batch, loader)
        batch = _moved(batch) if move is None else move(batch, _CPU, loader)
        return batch if after is None else after(batch, loader)

    @property
    def brings_batches(self) -> bool:
        """Whether there are hooks of its own that bring batches to the device."""
        return any(hook is not None for hook in self._transfer)

    def _transfer_hook(self, name: str) -> Callable[..., Any] | None:
        """A hook of the data module or else of the module; None where neither has its own."""
        if self.datamodule is not None and is_overridden(name, self.datamodule):
            if getattr(type(self.datamodule), name) is PreparedData.on_before_batch_transfer:
                return None  # on a CPU it leaves a batch as it is
            return partial(self.call_data, name)
        return partial(self.call, name) if is_overridden(name, self.module) else None


def replaced(instance: Any, base: type, name: str) -> bool:
    """Whether an instance has another method than its base class, be it the class's, be it its own."""
    found = getattr(instance, name)
    return getattr(found, "__func__", found) is not getattr(base, name)


def _moved(batch: Any) -> Any:
    """The batch on the CPU, in a container of its own, as Lightning makes one."""
    kind = type(batch)
    if kind is not list and kind is not tuple:
        return move_data_to_device(batch, _CPU)
    for each in batch:
        if type(each) is not Tensor or not each.is_cpu:
            return move_data_to_device(batch, _CPU)
    return kind(batch)
