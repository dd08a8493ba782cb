"""The shadow check: the first step of all slices against what two of them get alone.

Whatever a module does that cannot be done to all slices at once and raises nothing would show here: a kernel that mixes
slices, an operation without a right batching rule, a draw that is not drawn. It costs one step.
"""

# Shapes: K = slices, P = trained parameters of one.

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tuner.cohort.errors import NotFusable
from tuner.cohort.rows import Rows
from tuner.cohort.step import Batches, Outcome, Step
from tuner.cohort.template import copied, replace_layers
from tuner.cohort.twins import draws_itself
from tuner.training.rng import random_state, restore_random

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}
"""By how much of its size a number may differ."""


def check(step: Step, rows: Rows, batches: Batches, places: Iterable[int]) -> float:
    """Compare a step of some slices with their modules alone, from the same random state.

    Nothing is changed: parameters, buffers, state and random states are as before.

    Args:
        step: of all slices.
        rows: theirs.
        batches: theirs.
        places: which of them to compare.

    Returns:
        Seconds that the step takes alone, without the optimiser's.

    Raises:
        NotFusable: the loss, a gradient, a buffer or what is logged differs.
    """
    state, fixed = step.state, {name: tensor.clone() for name, tensor in rows.fixed.items()}
    random = random_state()
    together = step(batches, same_randomness=True)
    after = {name: tensor.clone() for name, tensor in rows.fixed.items()}
    for name, tensor in fixed.items():
        rows.fixed[name].copy_(tensor)
    step.state = state
    seconds = []
    for k in sorted(places):
        module = copied(rows.modules[k])
        replace_layers(module, draws_itself)  # so that both draw alike
        restore_random(random)
        _compare(step, rows, together, after, k, module, _own(batches, k))
        started = clock()
        _call(step, module, _own(batches, k))
        seconds.append(clock() - started)
    restore_random(random)
    return min(seconds)


def clock() -> float:
    """Seconds, of this process alone where one thread does the work, so that others on the machine do not count."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _compare(
    step: Step, rows: Rows, together: Outcome, after: Mapping[str, Tensor], k: int, module: Any, batch: Any
) -> None:
    logged: dict[str, Tensor] = {}

    def log(name: str, value: Any, *_: Any, **__: Any) -> None:
        logged[name] = torch.as_tensor(value).detach().squeeze()

    module.__dict__["log"] = log
    try:
        loss = _call(step, module, batch)
    except Exception as error:  # the user's code runs here; alone, the trial tells what is wrong
        raise NotFusable(f"alone it raises {type(error).__name__}") from error
    if together.loss is not None and together.gradients is not None:
        _equal("the loss", together.loss[k], loss)
        own = dict(module.named_parameters())
        for name, gradient in rows.parameters_of(together.gradients[k]).items():
            alone = own[name].grad
            if alone is None:  # its optimiser leaves it, even where it would decay
                raise NotFusable(f"no gradient reaches {name}")
            _equal(f"the gradient of {name}", gradient, alone)
    for name, buffer in module.named_buffers():
        _equal(f"the buffer {name}", after[name][k], buffer)
    for name, value in {call.name: value for call, value in together.logged}.items():
        mine = value[k] if isinstance(value, Tensor) else torch.as_tensor(value)
        _equal(name, mine, logged[name])


def _call(step: Step, module: Any, batch: Any) -> Any:
    """The step of a module alone, and its gradients."""
    module.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(step.trains):
        returned = getattr(module, step.method)(batch, *((0,) if step.takes_index else ()))
        if not step.trains:
            return None
        loss = returned["loss"] if isinstance(returned, Mapping) else returned
        loss.backward()
    return loss.squeeze()


def _own(batches: Batches, k: int) -> Any:
    """The batch of one slice, a copy."""
    leaves = [tensor.clone() if batches.shared else tensor[k].clone() for tensor in batches.tensors]
    return pytree.tree_unflatten(leaves, batches.spec)


def _equal(what: str, ours: Tensor, alone: Tensor) -> None:
    ours, alone = ours.detach(), alone.detach()
    if ours.shape != alone.shape:
        raise NotFusable(
            f"{what} has another shape in a cohort ({tuple(ours.shape)}) than alone ({tuple(alone.shape)})"
        )
    if not alone.dtype.is_floating_point:
        same = torch.equal(ours.to(alone.dtype), alone)
    else:
        share = TOLERANCE.get(alone.dtype, 1e-3)
        size = float(alone.abs().max()) if alone.numel() else 0.0
        same = torch.allclose(ours.to(alone.dtype), alone, rtol=share, atol=share * max(size, 1e-3), equal_nan=True)
    if not same:
        raise NotFusable(f"{what} is another in a cohort than alone")
