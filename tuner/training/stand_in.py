"""What a module sees as `self.trainer` in the lean loop; asking for more than is known there sends it to Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import lightning as L
import torch
from torch.optim import Optimizer

from tuner.training.borrowed import LightningOptimizer, Precision, RunningStage, TrainerFn, TrainerState, TrainerStatus

if TYPE_CHECKING:
    from tuner.training.lean import Lean

T = TypeVar("T")


class NotLean(BaseException):
    """The lean loop does not cover a trial, so Lightning's Trainer must train it; the text says why.

    It is not an `Exception`, so that no `except Exception` and no `hasattr` of a user's code swallows it.
    """


class Refusing:
    """Knows some attributes; reading or setting any other raises `NotLean`.

    Args:
        name: how a module reaches it.
        refusals: where the reasons are written down, too, should somebody swallow the exception after all.
        known: its plain attributes.
        settable: those of them that may be set.
    """

    def __init__(
        self, name: str, refusals: list[str], known: Mapping[str, Any], settable: frozenset[str] = frozenset()
    ) -> None:
        vars(self).update(known, _name=name, _refusals=refusals, _settable=settable)

    def __getattr__(self, name: str) -> Any:
        self._refuse(f"it reads {self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._settable:
            self._refuse(f"it sets {self._name}.{name}")
        vars(self)[name] = value

    def _refuse(self, reason: str) -> NoReturn:
        self._refusals.append(reason)
        raise NotLean(reason)


class StandIn(Refusing):
    """Stands in for `L.Trainer`, also before `isinstance`; what it shows is what the Trainer would show.

    The loop changes its plain attributes as it goes.

    Args:
        loop: whose trainer this is.
    """

    accumulate_grad_batches = 1
    checkpoint_callback = early_stopping_callback = progress_bar_callback = None
    fast_dev_run = interrupted = received_sigterm = sanity_checking = testing = predicting = False
    global_rank = local_rank = node_rank = 0
    enable_validation = is_global_zero = True
    logger = scaler = None
    num_devices = num_nodes = world_size = 1
    num_sanity_val_steps = reload_dataloaders_every_n_epochs = 0
    overfit_batches = 0.0
    precision = "32-true"

    def __init__(self, loop: Lean) -> None:
        settings = loop.settings
        limits = {"min_steps": settings.min_steps, "max_steps": settings.max_steps}
        epoch_loop = Refusing("trainer.fit_loop.epoch_loop", loop.refusals, limits, frozenset({"min_steps"}))
        epochs = {"min_epochs": settings.min_epochs, "max_epochs": settings.max_epochs, "epoch_loop": epoch_loop}
        known = {
            "_loop": loop,
            "state": TrainerState(TrainerStatus.RUNNING, TrainerFn.FITTING, RunningStage.TRAINING),
            "current_epoch": 0,
            "global_step": 0,
            "should_stop": False,
            "is_last_batch": False,
            "fit_loop": Refusing("trainer.fit_loop", loop.refusals, epochs, frozenset({"min_epochs"})),
            "strategy": Strategy(loop),
            "precision_plugin": Precision(),
            "datamodule": loop.datamodule,
            "lightning_module": loop.module,
            "model": loop.module,
            "optimizers": [],
            "lr_scheduler_configs": [],
            "train_dataloader": None,
            "val_dataloaders": None,
            "num_training_batches": math.inf,
            "num_val_batches": [],
            "log_dir": settings.default_root_dir,
            "device_ids": [0],
            "loggers": [],
        }
        shown = {name: value for name, value in vars(settings).items() if name not in ("deterministic", "benchmark")}
        super().__init__("trainer", loop.refusals, shown | known, frozenset({"should_stop"}))

    @property
    def __class__(self) -> type:
        return L.Trainer

    @__class__.setter
    def __class__(self, value: type) -> None:
        self._refuse("it sets trainer.__class__")

    @property
    def min_epochs(self) -> Any:
        """Epochs before which nothing stops early."""
        return self.fit_loop.min_epochs

    @property
    def min_steps(self) -> Any:
        """Steps before which nothing stops early."""
        return self.fit_loop.epoch_loop.min_steps

    @property
    def training(self) -> bool:
        """Whether it trains just now."""
        return bool(self.state.stage == RunningStage.TRAINING)

    @property
    def validating(self) -> bool:
        """Whether it validates just now."""
        return bool(self.state.stage == RunningStage.VALIDATING)

    evaluating = validating

    @property
    def estimated_stepping_batches(self) -> Any:
        """Steps that the whole training will take; loads the training data, if nobody has."""
        if self.max_epochs == -1:
            return math.inf if self.max_steps == -1 else self.max_steps
        self._loop.load_training_data()
        steps = self.num_training_batches * max(self.max_epochs, 1)
        return steps if self.max_steps == -1 else min(steps, self.max_steps)

    @property
    def callback_metrics(self) -> Any:
        """What was logged, by name."""
        return self._loop.recorder.callback_metrics

    def _logged_by_the_loop(self) -> set[str]:
        """The names that the training or the validation at hand has logged."""
        names: set[str] = self._loop.recorder.names
        return names

    @property
    def logged_metrics(self) -> Any:
        """What loggers would be given, by name."""
        return self._loop.recorder.logged_metrics

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print on the first process: there is one."""
        print(*args, **kwargs)


class Strategy(Refusing):
    """Stands in for the strategy of a single device.

    Args:
        loop: whose optimiser it steps.
    """

    global_rank = local_rank = 0
    is_global_zero = True
    world_size = 1

    def __init__(self, loop: Lean) -> None:
        known = {"_loop": loop, "root_device": torch.device("cpu"), "lightning_module": loop.module}
        super().__init__("trainer.strategy", loop.refusals, known | {"_wrapped": []})

    @property
    def optimizers(self) -> Any:
        """The one optimiser."""
        return self._loop.trainer.optimizers

    @property
    def _lightning_optimizers(self) -> Any:
        """The optimiser as Lightning hands it to hooks, made when somebody asks for it."""
        if not self._wrapped:
            wrap: Any = LightningOptimizer._to_lightning_optimizer
            self._wrapped.extend(wrap(each, self) for each in self.optimizers)
        return self._wrapped

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *_: Any, **kwargs: Any) -> Any:
        """Step an optimiser, whose closure clips the gradients before it returns."""
        return optimizer.step(closure=partial(self._loop.optimisation.clipped, closure), **kwargs)

    def reduce(self, tensor: T, *_: Any, **__: Any) -> T:
        """The same: there is one process."""
        return tensor

    all_gather = broadcast = reduce

    def barrier(self, *_: Any, **__: Any) -> None:
        """Wait for nobody."""
