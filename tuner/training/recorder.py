"""`self.log` of the lean loop: a step appends numbers, an epoch's end reduces them, bit for bit as Lightning does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from tuner.training.borrowed import MisconfigurationException, _FxValidator, extract_batch_size
from tuner.training.stand_in import NotLean

REDUCTIONS: Mapping[Any, Callable[..., Any]] = {
    "mean": torch.mean,
    "avg": torch.mean,
    "sum": torch.sum,
    "min": torch.min,
    "max": torch.max,
    **{reduce: reduce for reduce in (torch.mean, torch.sum, torch.min, torch.max, sum, min, max)},
}


@dataclass(frozen=True)
class Terms:
    """How a hook logs a name; it may do so in one way only.

    Attributes:
        hook: which hook, with the number of the validation loader where that is part of the name.
        loader: the number of the validation loader where there are several, or None.
        suffix: what is added to the name for that number.
        others: arguments that change nothing here, but must not change from call to call.
    """

    hook: str
    name: str
    loader: int | None
    suffix: str
    on_step: bool
    on_epoch: bool
    reduce: Callable[..., Any]
    logger: bool
    others: tuple[Any, ...]

    @property
    def averages(self) -> bool:
        """Whether an epoch's value is the mean of its batches."""
        return self.on_epoch and self.reduce is torch.mean

    def shown(self, on_step: bool) -> str:
        """The name under which the value of a step or of an epoch is shown."""
        fork = f"_{'step' if on_step else 'epoch'}" if self.on_step and self.on_epoch else ""
        return f"{self.name}{fork}{self.suffix}"


@dataclass(eq=False, slots=True)
class Entry:
    """What a hook has logged under a name since the last reset.

    Attributes:
        asked: the arguments of the call that made it, by which the next ones are recognised.
        metric: the torchmetrics object that is logged; None for numbers.
        numbers: the values, all in float32 or all in float64.
        sizes: how much each counts in a mean.
        double: whether they are float64.
        live: whether anything has been logged.
        latest: the latest value.
        computed: the epoch's value, once somebody has asked.
    """

    terms: Terms
    asked: tuple[Any, ...]
    metric: Metric | None
    averages: bool
    numbers: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    double: bool = False
    live: bool = False
    latest: float | Tensor | None = None
    computed: Tensor | None = None

    def reset(self) -> None:
        """Forget what was logged."""
        self.live, self.latest, self.computed, self.double = False, None, None, False
        self.numbers.clear()
        self.sizes.clear()
        if self.metric is not None:
            self.metric.reset()

    def value(self, on_step: bool) -> Tensor | None:
        """The value of the latest step, or of the epoch so far; None where it is not logged."""
        if on_step:
            return self._as_tensor(self.latest) if self.terms.on_step and self.latest is not None else None
        if not self.terms.on_epoch:
            return None
        if self.computed is None:
            self.computed = self._reduced() if self.metric is None else _computed(self.metric, self.terms.name)
        return self.computed

    def _reduced(self) -> Tensor:
        if self.averages:
            numbers = np.array(self.numbers, dtype=np.float64 if self.double else np.float32)
            return self._as_tensor(float(means(numbers, self.sizes)))
        reduce, start = self.terms.reduce, 0.0
        if reduce in (torch.sum, sum):
            reduce = torch.add
        else:
            start = float("-inf") if reduce in (torch.max, max) else float("inf")
        value = torch.tensor(start, dtype=torch.float32)
        for number in self.numbers:
            value = reduce(value, self._as_tensor(number))
        return value

    def _as_tensor(self, number: float | Tensor) -> Tensor:
        if isinstance(number, Tensor):
            return number.detach()
        return torch.tensor(number, dtype=torch.float64 if self.double else torch.float32)


def means(values: NDArray[Any], sizes: list[int]) -> NDArray[Any]:
    """The mean by weight over the first dimension, in the values' precision.

    It is rounded after each product and each sum, as Lightning's running one is.

    Args:
        values: shape (S, …).
        sizes: S weights.
    """
    with np.errstate(all="ignore"):
        products = values * np.array(sizes, dtype=values.dtype).reshape(-1, *(1,) * (values.ndim - 1))
        products[0] += 0.0  # Lightning's sum starts from 0, so it is never -0
        found: NDArray[Any] = np.add.accumulate(products)[-1] / values.dtype.type(sum(sizes))
        return found


def _computed(metric: Metric, name: str) -> Tensor:
    value = metric.compute()
    if not isinstance(value, Tensor):
        raise NotLean(f"it logs {name!r}, which computes a {type(value).__name__}")
    return value.detach()


class Recorder:
    """Takes the place of a module's `log`, and shows what was logged as the Trainer does.

    Args:
        module: whose `log` it is, until `detach`.

    Attributes:
        first: whether the batch at hand is the first one of an epoch; None outside of batches. It is Lightning's
            `_first_loop_iter`, oddities included: it decides whether steps or epochs are shown, and when a hook starts
            anew.
    """

    def __init__(self, module: L.LightningModule) -> None:
        self._module = module
        self._of_module = vars(module)  # where `_current_fx_name` says which hook runs
        self._of_module["log"] = self.log
        self._training: dict[Any, Entry] = {}
        self._validating: dict[Any, Entry] = {}
        self._entries = self._training
        self._callback: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}
        self._batch: Any = None
        self._size: int | None = None
        self._loader: int | None = None
        self._hook: str | None = None  # the one that logged last
        self.first: bool | None = None

    def detach(self) -> None:
        """Give the module its own `log` back."""
        self._of_module.pop("log", None)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise NotLean("it copies or pickles itself")

    # What the loop tells

    def switch(self, *, validating: bool) -> None:
        """From now on record validation, or training."""
        self._entries = self._validating if validating else self._training

    def begin_batch(self, batch: Any, loader: int | None = None) -> None:
        """A batch begins; its size counts where `log` is given none."""
        self.first = self.first is None
        self._batch, self._size, self._loader = batch, None, loader

    def end_batch(self) -> None:
        """The batch is over."""
        self._batch = self._size = None

    def settle(self) -> None:
        """Show what steps have logged. Lightning does so after each, but nobody can look before this."""
        if self.first is not None:
            self._show()

    def end_batches(self) -> None:
        """The batches of an epoch or of a validation loader are over."""
        self.settle()
        self.first = None

    def end_loader(self) -> None:
        """The batches of a validation loader are over, so show what they come to."""
        self.end_batches()
        self._show()

    def end_loaders(self) -> None:
        """Validation is over, so that what is logged now belongs to no loader."""
        self._loader = None

    def end_epoch(self) -> None:
        """The epoch's or the validation's last hook that may log is over."""
        self._show()
        self._hook = None

    def reset(self) -> None:
        """Begin a new epoch or validation; what the old one came to stays among the metrics."""
        for entry in self._entries.values():
            entry.reset()
        self.first = self._hook = None

    # What others see

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """The latest value of everything that was logged."""
        self._show()
        return self._callback

    @property
    def names(self) -> set[str]:
        """What trainings or validations log for their epochs, also what a later loader's batches have reset."""
        terms = [entry.terms for entry in self._entries.values() if entry.terms.on_epoch]
        return {name for each in terms for name in (each.name + each.suffix, each.shown(False))}

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """The same as loggers would get it."""
        self._show()
        return self._logged

    def state_dict(self) -> dict[str, Any]:
        """The metrics as they stand between two epochs."""
        return {"callback": dict(self._callback), "logged": dict(self._logged)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        self._callback.update(state["callback"])
        self._logged.update(state["logged"])

    def _show(self) -> None:
        on_step = self.first is not None
        for entry in self._entries.values():
            terms = entry.terms
            value = entry.value(on_step) if entry.live and terms.loader == self._loader else None
            if value is None:
                continue
            shown = terms.shown(on_step)
            if terms.logger:
                self._logged[shown] = value
            if self._entries is self._training or not on_step:
                self._callback[terms.name + terms.suffix] = value
                self._callback[shown] = value

    # What the module calls

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: Any = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log a value as `LightningModule.log` does."""
        hook = self._of_module["_current_fx_name"]
        others = (prog_bar, metric_attribute, rank_zero_only, sync_dist_group, enable_graph)
        asked = (on_step, on_epoch, reduce_fx, logger, add_dataloader_idx, self._loader, others)
        key = (hook, name, self._loader if add_dataloader_idx else None)
        entry = self._entries.get(key)
        if entry is None or entry.asked != asked:
            entry = self._agreed(key, asked, value)
        if self._hook != hook:
            self._begin(hook)
        if entry.metric is not None:
            if value is not entry.metric:
                raise NotLean(f"it logs different objects as {name!r}")
            entry.latest = value._forward_cache
        else:
            if type(value) is Tensor and value.dtype is torch.float32 and not entry.double:
                number = _item(value, name)
            else:
                number = _number(value, entry)
            entry.latest = number
            if entry.averages:
                entry.sizes.append(batch_size if type(batch_size) is int else self._size_of(batch_size))
            if entry.terms.on_epoch:
                entry.numbers.append(number)
        entry.live, entry.computed = True, None

    def take(
        self,
        hook: str,
        name: str,
        options: Mapping[str, Any],
        numbers: list[float],
        sizes: list[int],
        average: Tensor,
    ) -> None:
        """Log what the calls of a hook on so many batches have come to elsewhere.

        Args:
            hook: `training_step` or `validation_step`.
            name: what is logged.
            options: the arguments of `log` besides name, value and batch_size.
            numbers: the values.
            sizes: the batches' sizes, as given to `log` or found by it.
            average: the mean of the values by size, as `means` computes it, in float32 or float64 as they are.
        """
        taken = dict.fromkeys(("prog_bar", "enable_graph", "rank_zero_only"), False) | dict(options)
        others = tuple(
            taken.get(o) for o in ("prog_bar", "metric_attribute", "rank_zero_only", "sync_dist_group", "enable_graph")
        )
        add = taken.get("add_dataloader_idx", True)
        reduce = taken.get("reduce_fx", "mean")
        asked = (taken.get("on_step"), taken.get("on_epoch"), reduce, taken.get("logger"), add, None, others)
        key = (hook, name, None)
        entry = self._entries.get(key)
        if entry is None or entry.asked != asked:
            entry = self._agreed(key, asked, 0.0)
        for _ in range(min(2, len(numbers))):
            self.begin_batch(None)
            self.end_batch()
        if self._hook != hook:
            self._begin(hook)
        entry.double, entry.latest = average.dtype == torch.float64, numbers[-1]
        entry.computed = average if entry.averages and not entry.numbers else None
        if entry.averages:
            entry.sizes += sizes
        if entry.terms.on_epoch:
            entry.numbers += numbers
        entry.live = True

    def _begin(self, hook: str) -> None:
        """Another hook logs than the one before: in the first batch, and between batches, it starts anew."""
        if self.first is not False:
            for entry in self._entries.values():
                if entry.terms.hook == hook and entry.metric is None:
                    entry.reset()
        self._hook = hook

    def _size_of(self, batch_size: int | None) -> int:
        if batch_size is None:
            if self._batch is None:
                return 1
            if self._size is None:
                self._size = extract_batch_size(self._batch)
            return self._size
        if type(batch_size) is not int:
            raise NotLean(f"it logs with a batch_size that is a {type(batch_size).__name__}")
        return batch_size

    def _agreed(self, key: tuple[Any, ...], asked: tuple[Any, ...], value: Any) -> Entry:
        """The entry of a name, made if need be; another call must be on the same terms."""
        terms, entry = _terms(key, asked), self._entries.get(key)
        if entry is None:
            metric = value if isinstance(value, Metric) else None
            if metric is not None and not any(metric is each for each in self._module.modules()):
                raise NotLean(f"it logs {key[1]!r}, which is no attribute of it")
            entry = self._entries[key] = Entry(terms, asked, metric, terms.averages and metric is None)
        elif entry.terms != terms:
            raise NotLean(f"it logs {key[1]!r} twice in {key[0]} with different arguments")
        return entry


def _terms(key: tuple[Any, ...], asked: tuple[Any, ...]) -> Terms:
    hook, name, _ = key
    on_step, on_epoch, reduce_fx, logger, add_dataloader_idx, loader, others = asked
    if hook is None:
        raise NotLean(f"it logs {name!r} outside of its hooks")
    if torch.get_default_dtype() is not torch.float32:
        raise NotLean(f"torch's default is {torch.get_default_dtype()}")
    try:
        on_step, on_epoch = _FxValidator.check_logging_and_get_default_levels(hook, on_step=on_step, on_epoch=on_epoch)
    except (MisconfigurationException, RuntimeError) as error:
        raise NotLean(f"it logs {name!r} in {hook}: {error}") from None
    reduce = REDUCTIONS.get(reduce_fx.lower() if isinstance(reduce_fx, str) else reduce_fx)
    if reduce is None or not (on_step or on_epoch) or not isinstance(name, str) or "/dataloader_idx_" in name:
        raise NotLean(f"it logs {name!r} in a way that Lightning refuses")
    if others[-1]:
        raise NotLean(f"it logs {name!r} with enable_graph")
    suffix = f"/dataloader_idx_{loader}" if add_dataloader_idx and loader is not None else ""
    where = f"{hook}.{loader}" if suffix else hook
    return Terms(where, name, loader, suffix, on_step, on_epoch, reduce, logger is None or bool(logger), others)


def _number(value: Any, entry: Entry) -> float:
    """The number that is logged, exact in the entry's precision."""
    name = entry.terms.name
    if isinstance(value, Tensor) and not value.is_complex():
        tensor = value.detach()
        tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    elif isinstance(value, bool | int | float | np.number):
        try:
            tensor = torch.tensor(value, dtype=torch.float32)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise NotLean(f"it logs {name!r}, which is no number: {error}") from None
    else:
        raise NotLean(f"it logs {name!r}, which is a {type(value).__name__}")
    double = tensor.dtype is torch.float64
    if double is not entry.double:
        if entry.numbers:
            raise NotLean(f"it logs {name!r} in two precisions")
        entry.double = double
    return _item(tensor, name)


def _item(value: Tensor, name: str) -> float:
    try:
        return value.item()
    except RuntimeError:
        raise NotLean(f"it logs {name!r}, which has {value.numel()} values") from None
