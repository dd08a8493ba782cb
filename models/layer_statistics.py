"""Gradient norms and pre-activations of every layer, logged each epoch: a callback to switch on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations
from torch.utils.hooks import RemovableHandle

from tuner.models.layers.maxout import Maxout
from tuner.models.layers.recurrent import Recurrent


class LayerStatistics(L.Callback):
    """Logs what flows through every layer, as means over an epoch's training steps (documented.md §4, §9).

    - `grad_norm/LAYER`, the norm of the gradient of all weights and biases of a layer, before clipping: norms that
      shrink by orders of magnitude towards the first layer vanish, norms that grow explode;
    - `preact_mean/LAYER` and `preact_std/LAYER`, mean and deviation of what arrives at an activation: how far they
      move from epoch to epoch is the drift that normalisation is meant to stop.

    LAYER is the module's path, such as `net.1`. Of recurrent layers, and where activations are no modules, it is what
    the affine maps give.

    Switch it on in a study file; what is not switched on costs nothing:

        trainer:
          callbacks: [{class_path: tuner.models.LayerStatistics}]

    Args:
        every: look at every such step of the optimiser; 10 costs a tenth.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, but got {every}.")
        self.every = every
        self._hooks: list[RemovableHandle] = []
        self._looking = False
        self._seen: dict[str, list[Tensor]] = {}  # name → a scalar for each step of the epoch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach to the layers."""
        self._seen = {}
        recurrent = {name: m for name, m in pl_module.named_modules() if isinstance(m, Recurrent)}
        inside = {id(part) for layer in recurrent.values() for part in layer.modules()}
        others = {name: m for name, m in pl_module.named_modules() if id(m) not in inside}
        activations = {name: m for name, m in others.items() if isinstance(m, _ACTIVATIONS)}
        affine = {name: m for name, m in others.items() if isinstance(m, _AFFINE)}
        self._hooks = [m.register_forward_hook(self._recurring(name)) for name, m in recurrent.items()]
        if activations:
            self._hooks += [m.register_forward_pre_hook(self._arriving(name)) for name, m in activations.items()]
        else:
            self._hooks += [m.register_forward_hook(self._leaving(name)) for name, m in affine.items()]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look at this step or not; all batches whose gradients are accumulated belong to one step."""
        self._looking = trainer.global_step % self.every == 0

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measure the gradients, before they are clipped."""
        if not self._looking:
            return
        for name, module in pl_module.named_modules():
            gradients = [p.grad.norm() for p in module.parameters(recurse=False) if p.grad is not None]
            if gradients:
                self._see(f"grad_norm/{name}", torch.stack(gradients).norm())

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """A validation amid the epoch is not looked at."""
        self._looking = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means over the epoch."""
        for name, values in self._seen.items():
            mean = torch.stack(values).mean()
            if math.isfinite(mean):
                pl_module.log(name, mean)
        self._seen = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the layers as they were."""
        self._detach()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the layers as they were."""
        self._detach()

    def _detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _arriving(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, inputs: self._see_preactivation(name, inputs[0])

    def _leaving(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _module, _inputs, output: self._see_preactivation(name, output)

    def _recurring(self, name: str) -> Callable[[Recurrent, tuple[Any, ...], Any], None]:
        def see(layer: Recurrent, inputs: tuple[Any, ...], output: Any) -> None:
            if self._looking:
                with torch.no_grad():
                    state = inputs[1] if len(inputs) > 1 else None
                    self._see_preactivation(name, layer.preactivations(inputs[0], state, output[0]))

        return see

    def _see_preactivation(self, name: str, values: Tensor) -> None:
        if self._looking:
            with torch.no_grad():
                self._see(f"preact_mean/{name}", values.mean())
                self._see(f"preact_std/{name}", values.std(correction=0))

    def _see(self, name: str, value: Tensor) -> None:
        self._seen.setdefault(name, []).append(value.detach())


_ACTIVATIONS = (
    *(getattr(torch_activations, name) for name in torch_activations.__all__ if name != "MultiheadAttention"),
    Maxout,
)
_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
