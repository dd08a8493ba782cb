"""One step of the optimiser in the lean loop: forward, backward, clip, step, in the order of Lightning's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_pre_hooks

from tuner.training.borrowed import (
    LightningOptimizer,
    LRSchedulerConfig,
    _configure_optimizers,
    _configure_schedulers_automatic_opt,
    _validate_multiple_optimizers_support,
    _validate_optimizers_attached,
    _validate_scheduler_api,
)
from tuner.training.hooks import RUNNING, replaced
from tuner.training.stand_in import NotLean

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.training.lean import Lean


class Optimisation:
    """A module's one optimiser and its learning-rate schedules.

    Args:
        loop: whose steps these are.

    Attributes:
        outputs: what `on_train_batch_end` gets, if the module has that hook.
    """

    def __init__(self, loop: Lean) -> None:
        self.module, self.hooks, self.trainer = loop.module, loop.hooks, loop.trainer
        self.clips = loop.settings.gradient_clip_val is not None
        self.optimizer: Optimizer
        self.schedules: list[LRSchedulerConfig] = []
        self.outputs: dict[str, Any] = {}
        self._batch: tuple[Any, ...] = ()
        self._batch_idx = 0
        self._computed = False
        self._is_plain = self._zeroes_plainly = False

    def configure(self) -> None:
        """Ask the module for its optimiser and schedules, in any form that Lightning reads."""
        given = self.hooks.call("configure_optimizers")
        if given is None:
            raise NotLean("its configure_optimizers gives nothing")
        optimizers, schedulers, monitor = _configure_optimizers(given)
        schedules = _configure_schedulers_automatic_opt(schedulers, monitor)
        _validate_multiple_optimizers_support(optimizers, self.module)
        _validate_optimizers_attached(optimizers, schedules)
        _validate_scheduler_api(schedules, self.module)
        if len(optimizers) != 1 or not isinstance(optimizers[0], Optimizer):
            raise NotLean("it has not one optimiser of torch's kind")
        if isinstance(optimizers[0], LightningOptimizer):
            raise NotLean("its optimiser is wrapped already")
        self.optimizer, self.schedules = optimizers[0], schedules
        vars(self.trainer).update(optimizers=optimizers, lr_scheduler_configs=schedules)

    def look(self) -> None:
        """See whether the optimiser is one of torch's own, untouched, which can be stepped and zeroed more quickly."""
        kind, patched = type(self.optimizer), vars(self.optimizer).get("step")
        untouched = patched is None or hasattr(patched, "_wrapped_by_lr_sched")  # schedules only count the steps
        self._is_plain = kind.__module__.startswith("torch.optim.") and kind is not torch.optim.LBFGS and untouched
        self._zeroes_plainly = not replaced(self.optimizer, Optimizer, "zero_grad")

    def step(self, batch: tuple[Any, ...], batch_idx: int) -> None:
        """Take a step.

        Args:
            batch: what `training_step` is called with.
            batch_idx: the number of the batch in its epoch.
        """
        hooks, optimizer = self.hooks, self.optimizer
        self._batch, self._batch_idx, self._computed = batch, batch_idx, False
        if "optimizer_step" in hooks.own:
            wrapped = self.trainer.strategy._lightning_optimizers[0]
            hooks.call("optimizer_step", self.trainer.current_epoch, batch_idx, wrapped, self._closure)
        else:
            hooks.running[RUNNING] = "optimizer_step"
            if self._is_plain and not (optimizer._optimizer_step_pre_hooks or _global_optimizer_pre_hooks):
                self._closure()  # it would be called once, and first
                self._clip()
                optimizer.step()
            else:
                optimizer.step(closure=partial(self.clipped, self._closure))
            hooks.running[RUNNING] = None
        if not self._computed:
            raise NotLean("its optimiser did not call the closure")
        vars(self.trainer)["global_step"] += 1

    def clipped(self, closure: Callable[[], Any]) -> Any:
        """Call the closure that computes gradients, then clip them."""
        answer = closure()
        self._clip()
        return answer

    def _clip(self) -> None:
        """Clip the gradients as the module and the trainer say."""
        own = self.hooks.own
        if "on_before_optimizer_step" in own:
            self.hooks.call("on_before_optimizer_step", self.optimizer)
        if self.clips or "configure_gradient_clipping" in own or "clip_gradients" in own:
            self.hooks.call(
                "configure_gradient_clipping",
                self.optimizer,
                gradient_clip_val=self.trainer.gradient_clip_val,
                gradient_clip_algorithm=self.trainer.gradient_clip_algorithm,
            )

    def _closure(self) -> Tensor | None:
        """Compute loss and gradients; an optimiser may call this more than once."""
        if torch.is_grad_enabled():
            return self._forward_and_backward()
        with torch.enable_grad():
            return self._forward_and_backward()

    def _forward_and_backward(self) -> Tensor | None:
        running, own = self.hooks.running, self.hooks.own
        running[RUNNING] = "training_step"
        loss, others = _loss(self.module.training_step(*self._batch))
        running[RUNNING] = "optimizer_step"
        if "on_train_batch_end" in own:
            self.outputs = {} if loss is None else {"loss": loss.detach().clone(), **others}
        self._zero_gradients()
        if loss is not None:
            running[RUNNING] = "backward"
            self._backward(loss)
            running[RUNNING] = "optimizer_step"
        self._computed = True
        return None if loss is None else loss.detach()

    def _zero_gradients(self) -> None:
        own, call = self.hooks.own, self.hooks.call
        if "on_before_zero_grad" in own:
            call("on_before_zero_grad", self.optimizer)
        if "optimizer_zero_grad" in own:
            call("optimizer_zero_grad", self.trainer.current_epoch, self._batch_idx, self.optimizer)
        elif self._zeroes_plainly:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        else:
            self.optimizer.zero_grad()

    def _backward(self, loss: Tensor) -> None:
        own, call = self.hooks.own, self.hooks.call
        if "on_before_backward" in own or "backward" in own:
            loss = loss / 1  # the hooks see another tensor than the step's, as with Lightning
        if "on_before_backward" in own:
            call("on_before_backward", loss)
        if "backward" in own:
            self.module.backward(loss)
        else:
            loss.backward()
        if "on_after_backward" in own:
            call("on_after_backward")

    @property
    def schedules_steps(self) -> bool:
        """Whether a schedule goes by steps."""
        return any(config.interval == "step" for config in self.schedules)

    def schedule(self, interval: str, index: int, *, on_plateau: bool = False) -> None:
        """Step the schedules whose turn it is.

        Args:
            interval: `step` or `epoch`.
            index: the number of the batch in its epoch, or of the epoch.
            on_plateau: step those that follow a metric, or the others.
        """
        for config in self.schedules:
            due = config.interval == interval and (index + 1) % config.frequency == 0
            if config.reduce_on_plateau is not on_plateau or not due:
                continue
            value = self.trainer.callback_metrics.get(config.monitor) if on_plateau else None
            if on_plateau and value is None:
                if config.strict:
                    raise NotLean(f"its schedule follows {config.monitor!r}, which is not logged")
                told = f"ReduceLROnPlateau follows {config.monitor!r}, which is not logged: skipped."
                warnings.warn(told, RuntimeWarning, stacklevel=2)
                continue
            self.hooks.call("lr_scheduler_step", config.scheduler, value)


def _loss(output: Any) -> tuple[Tensor | None, dict[str, Any]]:
    """The loss of what `training_step` returned, None to skip the batch, and what else it returned."""
    if output is None or isinstance(output, Tensor):
        return output, {}
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        return output["loss"], {name: value for name, value in output.items() if name != "loss"}
    raise NotLean("its training_step returns neither a loss nor None")
