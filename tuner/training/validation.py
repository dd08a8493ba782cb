"""Validation in the lean loop, in the order of Lightning's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tuner.training.batches import gathered
from tuner.training.borrowed import (
    RunningStage,
    _verify_dataloader_idx_requirement,
    is_overridden,
    is_param_in_hook_signature,
    set_sampler_epoch,
)
from tuner.training.covered import in_loader
from tuner.training.hooks import RUNNING
from tuner.training.settings import part_of
from tuner.training.stand_in import NotLean

if TYPE_CHECKING:
    from tuner.training.lean import Lean


class Validation:
    """A module's validation on one or more loaders.

    Args:
        loop: in whose epochs it runs.

    Attributes:
        loaders: none before `load`.
        sizes: how many batches of each are used.
        passed: the batches of the loader at hand that are left.
    """

    def __init__(self, loop: Lean) -> None:
        self.loop, self.module, self.hooks = loop, loop.module, loop.hooks
        self.loaders: list[Any] = []
        self.sizes: list[int] = []
        self.passed: Iterator[Any] = iter(())
        self._modes: dict[str, bool] = {}

    def load(self) -> None:
        """Ask for the loaders, if nobody has."""
        if self.loaders:
            return
        given = self.hooks.source("val_dataloader")
        self.loaders = list(given) if type(given) in (list, tuple) else [given]
        self.sizes = [usable(loader, "val_dataloader", self.loop.settings.limit_val_batches) for loader in self.loaders]
        vars(self.loop.trainer).update(val_dataloaders=given, num_val_batches=self.sizes)
        for names in (("validation_step",), ("on_validation_batch_start", "on_validation_batch_end")):
            _verify_dataloader_idx_requirement(names, len(self.sizes) > 1, RunningStage.VALIDATING, self.module)

    def begin(self) -> None:
        """What comes before the first batch."""
        with torch.no_grad():
            self.load()
            for loader in self.loaders:
                set_sampler_epoch(loader, self.loop.processed)
            self.passed = iter(gathered(self.loaders[0]))
            modules = dict(self.module.named_modules())
            self._modes = {name: module.training for name, module in modules.items()}
            if is_overridden("on_validation_model_eval", self.module) or not all(
                map(_switches_plainly, modules.values())
            ):
                self.hooks.call("on_validation_model_eval")
            else:
                for module in modules.values():
                    module.__dict__["training"] = False
            for hook in ("on_validation_start", "on_validation_epoch_start"):
                self.hooks.call(hook)

    def rewind(self) -> None:
        """Begin the first loader's batches again."""
        self.passed = iter(gathered(self.loaders[0]))

    @torch.no_grad()
    def run_batches(self) -> None:
        """Validate on the batches of all loaders."""
        for number, size in enumerate(self.sizes):
            if number > 0:
                self.passed = iter(gathered(self.loaders[number]))
            self._loader(self.passed, number, size)

    @torch.no_grad()
    def end(self) -> None:
        """What comes after the last batch."""
        self._end()
        if is_overridden("on_validation_model_train", self.module):
            self.hooks.call("on_validation_model_train")
        else:
            for name, module in self.module.named_modules():
                mode = self._modes.get(name, module.training)
                if _switches_plainly(module):
                    module.__dict__["training"] = mode
                else:
                    module.training = mode

    def _loader(self, batches: Iterator[Any], number: int, size: int) -> None:
        """Validate on the batches of a loader."""
        hooks, recorder, running = self.hooks, self.loop.recorder, self.hooks.running
        own = (number,) if len(self.sizes) > 1 else ()
        with_index = is_param_in_hook_signature(self.module.validation_step, "batch_idx", min_args=2)
        for index in range(size):
            batch = taken(batches, "val_dataloader")
            if index == 0 and number > 0:
                recorder.end_loader()
            batch = hooks.transferred(batch, number)
            recorder.begin_batch(batch, *own)
            if "on_validation_batch_start" in hooks.own:
                hooks.call("on_validation_batch_start", batch, index, *own)
            running[RUNNING] = "validation_step"
            output = self.module.validation_step(batch, *((index,) if with_index else ()), *own)
            running[RUNNING] = None
            if "on_validation_batch_end" in hooks.own:
                hooks.call("on_validation_batch_end", output, batch, index, *own)
            recorder.end_batch()

    def _end(self) -> None:
        """The hooks after the last batch, ours before the module's."""
        loop, recorder = self.loop, self.loop.recorder
        recorder.end_loader()
        recorder.end_loaders()
        self.hooks.call("on_validation_epoch_end")
        recorder.end_epoch()
        loop.observer.on_validation_end(loop.trainer, self.module)
        if loop.observer.without:
            raise NotLean(f"its validation does not log {loop.observer.objective.metric}")
        self.hooks.call("on_validation_end")
        recorder.reset()


def _switches_plainly(module: nn.Module) -> bool:
    """Whether `eval` sets the flag and no more; torch sets it by way of all that a module may hold."""
    kind: Any = type(module)
    return kind.eval is nn.Module.eval and kind.train is nn.Module.train and kind.__setattr__ is nn.Module.__setattr__


def usable(loader: Any, hook: str, limit: int | float) -> int:
    """How many batches of a loader are used.

    Args:
        loader: what a hook gave.
        hook: its name.
        limit: a number of batches, or a part of them.

    Raises:
        NotLean: the loop does not cover the loader.
    """
    if (reason := in_loader(loader, hook)) is not None:
        raise NotLean(reason)
    if not isinstance(loader, torch.utils.data.DataLoader):
        iter(loader)  # Lightning tries this, and the loader may draw random numbers
    size = part_of(len(loader), limit)
    if size == 0:
        raise NotLean(f"the trainer's limit of batches leaves none of its {hook}")
    return size


def taken(batches: Iterator[Any], hook: str) -> Any:
    """The next batch.

    Raises:
        NotLean: there is none.
    """
    for batch in batches:
        return batch
    raise NotLean(f"its {hook} gives fewer batches than it says")
