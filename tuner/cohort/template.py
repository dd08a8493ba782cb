"""One module that stands for K: what differs between them is handed in, what one of them changes is handed out.

The module's own code runs, unmodified, on tensors that `torch.func.vmap` makes stand for those of all K slices. What
would be wrong there without anybody noticing is watched for: hyperparameters that differ, the epoch and step counters,
the batch's number, attributes that a step changes.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.data import AttributeDict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tuner.cohort import batch_innermost, batch_norm
from tuner.cohort.cross_entropy import mean_cross_entropy, takes
from tuner.cohort.errors import NotFusable, StateMissing
from tuner.cohort.twins import METRICS, DropoutTwin, twin_of
from tuner.training import NotLean

Place = tuple[str, str]
"""A submodule's path and an attribute of it."""

HYPERPARAMETERS = "_hparams"
_OWN = frozenset(L.LightningModule().__dict__) | {"log", "_hparams", "_hparams_initial", "_hparams_name"}


@dataclass(frozen=True)
class Logged:
    """One call of `self.log`: all but its value."""

    name: str
    options: Mapping[str, Any]


@dataclass
class Called:
    """What a call of one of the module's methods leaves behind.

    Attributes:
        returned: what it returned.
        logged: its calls of `self.log`, and their values.
        state: attributes of tensors, or that were, as they are after the call.
        buffers: buffers that were assigned anew; what was changed in place is changed.
    """

    returned: Any
    logged: list[tuple[Logged, Any]]
    state: dict[Place, Any]
    buffers: dict[str, Tensor]


class Template:
    """A copy of the first of K modules, on which a call is made for all of them.

    Args:
        modules: K modules of equal structure.
        searched: hyperparameters and attributes of the module that differ in other cohorts; numbers among them become
            tensors even where all agree, so that recordings serve every cohort.

    Attributes:
        module: the copy, with layers in which slices may differ or that do not fuse replaced by their twins.
        varying: numbers in which the modules differ, each of shape (K,) in float64, by place; hyperparameters have the
            place `_hparams`.

    Raises:
        NotFusable: the module cannot be copied, or a layer has no twin.
    """

    def __init__(self, modules: Sequence[L.LightningModule], searched: Collection[str] = ()) -> None:
        self.module = copied(modules[0])
        self._hyper = _Watched(self.module.hparams)
        replace_layers(self.module)
        self.varying: dict[Place, Tensor] = {}
        self._refused: set[Place] = set()
        self._kept = _Kept()
        self._fresh: set[Place] = set()
        self._seen = [_Seen(module) for module in modules]
        self._find_differences(modules, searched)
        self._plain = {
            (path, name): value
            for path, sub in _layers(modules[0])
            for name, value in _attributes(sub)
            if (path, name) not in self.varying and (path, name) not in self._refused and not has_tensors(value)
        }
        self.module.__dict__[HYPERPARAMETERS] = self._hyper
        self.module._trainer = _NoTrainer()

    def _find_differences(self, modules: Sequence[L.LightningModule], searched: Collection[str]) -> None:
        """Numbers that differ, or may, become tensors; anything else that differs must not be read."""
        for name in modules[0].hparams:
            values = [module.hparams.get(name) for module in modules]
            if _may_vary(values, name in searched):
                self.varying[HYPERPARAMETERS, name] = torch.tensor(values, dtype=torch.float64)
            elif not _all_same(values):
                self._hyper.refused.add(name)
        named = [dict(_layers(module)) for module in modules]
        for path, sub in self.module.named_modules():
            if path not in named[0]:
                continue  # a part of a twin
            for name, _ in _attributes(sub):
                values = [theirs[path].__dict__.get(name) for theirs in named]
                drops = isinstance(sub, DropoutTwin) and name == "p"
                if any(map(has_tensors, values)):
                    continue
                if _may_vary(values, drops or (path == "" and name in searched)):
                    self.varying[path, name] = torch.tensor(values, dtype=torch.float64)
                elif not _all_same(values):
                    self._refuse((path, name), "in which the trials differ", attribute=name)

    def _refuse(self, place: Place, why: str, attribute: str | None = None) -> None:
        """From now on reading this attribute raises."""
        self._refused.add(place)
        sub = self.module.get_submodule(place[0])
        owner = type(sub)
        refusal = _refusal(f"it reads self.{_dotted(place)}, {why}", attribute)
        sub.__class__ = type(owner.__name__, (owner,), {place[1]: property(refusal)})

    def look(self, modules: Mapping[int, L.LightningModule]) -> bool:
        """Take note of what hooks have changed in the modules of slices since they were looked at last.

        A number of which each slice has its own is taken over. Anything else must not be read from now on.

        Args:
            modules: by slice.

        Returns:
            Whether there is something that steps must not read any more, so that they have to be checked anew.

        Raises:
            NotFusable: layers were changed, or a number is none any more.
        """
        found = [self._note(k, place, v) for k in modules for place, v in self._seen[k].changes().items()]
        return any(found)

    def _note(self, k: int, place: Place, value: Any) -> bool:
        """Take note of an attribute that has changed; whether reading it has to be refused from now on."""
        path, name = place
        if place in self.varying:
            if type(value) is not float:
                raise NotFusable(f"it changes self.{_dotted(place)}, which is no number any more")
            self.varying[place][k] = value
        elif path == HYPERPARAMETERS:
            known = name in self._hyper.changed
            self._hyper.changed.add(name)
            return not known
        elif place not in self._refused and place not in self._kept.places and not has_tensors(value):
            self._plain.pop(place, None)
            self._refuse(place, "which changes between epochs")
            return True
        return False

    def accept(self, k: int, module: L.LightningModule) -> bool:
        """Let another module be slice k; False if it differs in what all slices must agree on."""
        differing = {
            name
            for name, value in module.hparams.items()
            if (HYPERPARAMETERS, name) not in self.varying and not same(value, self._hyper.plain(name))
        }
        if differing & self._hyper.read:
            return False
        for (path, name), value in self._plain.items():
            other = module.get_submodule(path).__dict__.get(name)
            if (path, name) not in self._kept.places and not has_tensors(other) and not same(value, other):
                return False
        numbers = {place: _at(module, place) for place in self.varying}
        if not all(type(number) is float for number in numbers.values()):
            return False
        self._hyper.refused |= differing
        for place, number in numbers.items():
            self.varying[place][k] = number
        self._seen[k] = _Seen(module)
        return True

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these slices, in this order."""
        self.varying = {place: values[list(kept)] for place, values in self.varying.items()}
        self._seen = [self._seen[k] for k in kept]

    def does_as(self, other: Template) -> bool:
        """Whether recordings made with another template are this one's, too: nothing that they may contain differs."""
        if self.varying.keys() != other.varying.keys() or self._hyper.refused & other._hyper.read:
            return False
        if not all(same(self._hyper.plain(name), other._hyper.plain(name)) for name in other._fixed_reads()):
            return False
        places = other._plain.keys() - self._kept.places - other._kept.places
        return all(place in self._plain and same(self._plain[place], other._plain[place]) for place in places)

    def _fixed_reads(self) -> set[str]:
        return {name for name in self._hyper.read if (HYPERPARAMETERS, name) not in self.varying}

    def state_of(self, modules: Sequence[L.LightningModule], method: str, *, search: bool = True) -> dict[Place, Any]:
        """What a method carries from call to call: attributes of the modules that hold tensors, stacked.

        Those that the method neither reads nor changes are left out, once it has been called. Attributes that hold
        tensors for the first time are found only by a search.

        Raises:
            NotFusable: they are made up differently from module to module.
        """
        for module in modules if search else ():
            for path, sub in _layers(module):
                for name, value in _attributes(sub):
                    if has_tensors(value):
                        self._keep(path, name)
        places = self._kept.used.get(method, self._kept.places)
        return {place: _stacked(place, [_at(module, place) for module in modules]) for place in sorted(places)}

    def _keep(self, path: str, name: str) -> None:
        """From now on what this attribute holds is the slice's at hand."""
        if (path, name) not in self._kept.places:
            self._kept.places.add((path, name))
            sub = self.module.get_submodule(path)
            owner = type(sub)
            sub.__class__ = type(owner.__name__, (owner,), {name: self._kept.attribute((path, name))})

    def like(self, module: L.LightningModule) -> None:
        """Take over which submodules are in training mode."""
        for path, sub in _layers(module):
            self.module.get_submodule(path).training = sub.training

    def call(
        self,
        method: str,
        args: Sequence[Any],
        tensors: Mapping[str, Tensor],
        varying: Mapping[Place, Tensor],
        state: Mapping[Place, Any],
    ) -> Called:
        """Call a method as one slice's module would, within `vmap`.

        Args:
            method: such as `training_step`.
            args: what it is called with.
            tensors: parameters and buffers of the slice.
            varying: its numbers.
            state: its attributes that hold tensors.
        """
        logged: list[tuple[Logged, Any]] = []
        used = self._kept.used.setdefault(method, set())
        with self._as_slice(varying, state, logged, used) as before, _Rules():
            run = _Run(self.module, method)
            given = {f"module.{name}": tensor for name, tensor in tensors.items()}
            returned, buffers = torch.func.functional_call(run, given, (args, tensors))
            after = self._changed(method, before)
        return Called(returned, logged, after, buffers)

    @contextmanager
    def _as_slice(
        self,
        varying: Mapping[Place, Tensor],
        state: Mapping[Place, Any],
        logged: list[tuple[Logged, Any]],
        used: set[Place],
    ) -> Iterator[dict[Place, tuple[Any, Any]]]:
        """Be one of the slices for a while; yields every attribute as it is then, and what is inside."""
        kept = {path: dict(sub.__dict__) for path, sub in self.module.named_modules()}
        self.module.__dict__["log"] = functools.partial(_log, logged)
        self._hyper.varying = {name: v for (path, name), v in varying.items() if path == HYPERPARAMETERS}
        try:
            self._kept.now, self._kept.touched = dict(state), used
            for (path, name), value in varying.items():
                if path != HYPERPARAMETERS:
                    self.module.get_submodule(path).__dict__[name] = value
            yield {
                (path, name): (value, _inside(value))
                for path, sub in self.module.named_modules()
                for name, value in _attributes(sub)
            }
        finally:
            for path, sub in self.module.named_modules():
                for name in [name for name, _ in _attributes(sub)]:
                    del sub.__dict__[name]
                sub.__dict__.update({n: v for n, v in kept[path].items() if n in _names(kept[path])})
            self.module.__dict__.pop("log", None)
            self._hyper.varying = {}
            for path, name in self._fresh:
                self._keep(path, name)
            self._fresh.clear()

    def _changed(self, method: str, before: Mapping[Place, tuple[Any, Any]]) -> dict[Place, Any]:
        """What is carried to the next call; a change of an attribute that holds no tensors is refused."""
        for path, sub in self.module.named_modules():
            for name, value in _attributes(sub):
                place = path, name
                if place in self._kept.places:
                    continue
                then, inside = before.get(place, (None, None))
                if place in before and then is value:
                    if not _is_inside(value, inside):
                        raise NotFusable(f"{method} changes what is in self.{_dotted(place)}")
                elif has_tensors(value) or has_tensors(then):
                    self._kept.now[place] = value
                    self._kept.touched.add(place)
                    self._fresh.add(place)
                elif place not in before or not same(then, value):
                    raise NotFusable(f"{method} changes self.{_dotted(place)}")
        return {place: value for place, value in self._kept.now.items() if place in self._kept.touched}


class _Seen:
    """A module's plain attributes, as they were when they were looked at last.

    Args:
        module: a slice's.
    """

    def __init__(self, module: L.LightningModule) -> None:
        self._module = module
        self._layers = list(module.modules())
        self._held = [
            *((path, sub.__dict__, _noted(sub.__dict__)) for path, sub in _layers(module)),
            (HYPERPARAMETERS, module.hparams, _noted(module.hparams)),
        ]

    def changes(self) -> dict[Place, Any]:
        """What has another value since, or something else in it, or is new.

        Raises:
            NotFusable: the module has other layers.
        """
        now = list(self._module.modules())
        if len(now) != len(self._layers) or any(a is not b for a, b in zip(now, self._layers, strict=True)):
            raise NotFusable("it changes its layers")
        found: dict[Place, Any] = {}
        for path, holder, noted in self._held:
            for name, value in holder.items():
                if name in _OWN:
                    continue
                then, inside = noted.get(name, (_ABSENT, None))
                if then is not value or (inside is not None and not _is_inside(value, inside)):
                    noted[name] = value, _inside(value)
                    if then is value or not same(then, value):
                        found[path, name] = value
        return found


_ABSENT = object()


def _noted(holder: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (value, _inside(value)) for name, value in holder.items() if name not in _OWN}


def _inside(value: Any) -> Any:
    """What is directly in a value that may be changed in place, or None."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | set):
        return list(value)
    attributes = None if isinstance(value, Tensor) else getattr(value, "__dict__", None)
    return dict(attributes) if isinstance(attributes, dict) else None


def _is_inside(value: Any, inside: Any) -> bool:
    """Whether the same is in a value as then."""
    if inside is None:
        return True
    now = _inside(value)
    if isinstance(now, dict):
        return now.keys() == inside.keys() and all(now[key] is inside[key] for key in now)
    return len(now) == len(inside) and all(a is b for a, b in zip(now, inside, strict=True))


class _Kept:
    """The attributes that hold tensors, which are the slice's at hand.

    Attributes:
        places: where they are.
        now: what they hold.
        touched: those that the call at hand has read or changed.
        used: by method, those that its calls have.
    """

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self.now: dict[Place, Any] = {}
        self.touched: set[Place] = set()
        self.used: dict[str, set[Place]] = {}

    def attribute(self, place: Place) -> property:
        """Stands for one of them in the module's class."""

        def get(_: Any) -> Any:
            if place not in self.now:
                self.touched.add(place)
                raise StateMissing(f"it reads self.{_dotted(place)}, which it did not before")
            self.touched.add(place)
            return self.now[place]

        def put(_: Any, value: Any) -> None:
            self.touched.add(place)
            self.now[place] = value

        return property(get, put)


class _Run(nn.Module):
    """Runs a method, and looks at the buffers before functional_call puts the old ones back."""

    def __init__(self, module: L.LightningModule, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, args: Sequence[Any], given: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        returned = getattr(self.module, self.method)(*args)
        now = dict(self.module.named_buffers())
        if missing := now.keys() - given.keys():
            raise NotFusable(f"{self.method} registers the buffer {min(missing)}")
        return returned, {name: buffer for name, buffer in now.items() if buffer is not given[name]}


class _Watched(AttributeDict):
    """Hyperparameters, of which some differ between slices: a number is the slice's own, anything else is refused.

    Attributes:
        refused: names of those that must not be read.
        changed: names of those that hooks change, which must not be read, either.
        varying: the slice's own.
        read: names of those that have been read.
    """

    refused: set[str]
    changed: set[str]
    varying: dict[str, Tensor]
    read: set[str]

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        vars(self).update(refused=set(), changed=set(), varying={}, read=set())

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            vars(self)[name] = value
        else:
            super().__setattr__(name, value)

    def plain(self, name: str) -> Any:
        """The first slice's value, without anybody noticing."""
        return super().get(name)

    def __getitem__(self, name: str) -> Any:
        if name in self.refused:
            raise NotFusable(f"it reads the hyperparameter {name}, in which the trials differ", attribute=name)
        if name in self.changed:
            raise NotFusable(f"it reads the hyperparameter {name}, which changes between epochs")
        self.read.add(name)
        return self.varying[name] if name in self.varying else super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            self.read.add(name)
            return default

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


class _NoTrainer:
    """What a step sees as its trainer: nothing can be asked of it, since slices are in different epochs."""

    def __getattr__(self, name: str) -> Any:
        raise NotFusable(f"its step reads self.trainer.{name}")

    def __bool__(self) -> bool:
        return True


class _Rules(TorchFunctionMode):
    """Operations that torch could do to all slices at once, but for a check of their values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **given)
        if func is torch.nn.functional.cross_entropy and len(args) == 2 and takes(args[0], args[1], given):
            return mean_cross_entropy(args[0], args[1])
        if func is torch.nn.functional.batch_norm and args and batch_norm.takes(*args, **given):
            return batch_norm.batch_norm(*args, **given)
        if func is torch.nn.functional.conv2d and not given and batch_innermost.takes_convolution(*args):
            return batch_innermost.convolution(*args[:5])
        if func is torch.nn.functional.avg_pool2d and not given and batch_innermost.takes_pooling(*args):
            return batch_innermost.pooling(args[0])
        return func(*args, **given)


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        raise NotFusable("it calls one_hot without num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).to(torch.int64)


def _log(logged: list[tuple[Logged, Any]], name: str, value: Any, *args: Any, **options: Any) -> None:
    if args:
        raise NotFusable("it calls self.log with more than two arguments that have no name")
    if not isinstance(value, Tensor | int | float):
        raise NotFusable(f"it logs {name} as a {type(value).__name__}")
    if isinstance(value, Tensor) and value.dim() > 0:
        if value.numel() != 1:
            raise NotFusable(f"it logs {name}, which has {value.numel()} values")
        value = value.reshape(())
    logged.append((Logged(name, options), value))


def copied(module: L.LightningModule) -> Any:
    """A copy of a module, without its trainer and its recorder.

    Raises:
        NotFusable: it cannot be copied.
    """
    recorder = module.__dict__.pop("log", None)
    try:
        return copy.deepcopy(module)
    except (Exception, NotLean) as error:  # the user's objects are copied here and may raise anything
        raise NotFusable(f"it cannot be copied: {error}") from error
    finally:
        if recorder is not None:
            module.__dict__["log"] = recorder


def replace_layers(module: nn.Module, which: Callable[[nn.Module], bool] = lambda _: True) -> None:
    """Put twins in the place of layers that have one."""
    for path, sub in list(module.named_modules()):
        if path and which(sub) and (twin := twin_of(sub)) is not None:
            parent, _, leaf = path.rpartition(".")
            module.get_submodule(parent)._modules[leaf] = twin.train(sub.training)


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A module and its layers, by path; without metrics, whose attributes are nobody's business."""
    apart: tuple[str, ...] = ()
    for path, sub in module.named_modules():
        if isinstance(sub, METRICS):
            apart += (f"{path}.",)
        elif not path.startswith(apart):
            yield path, sub


def _stacked(place: Place, values: Sequence[Any]) -> Any:
    """What the slices hold, their tensors stacked."""
    flat = [pytree.tree_flatten(value) for value in values]
    leaves, spec = flat[0]
    parts = list(zip(*(own for own, _ in flat), strict=False))
    alike = all(other == spec for _, other in flat) and all(
        len({(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in part}) == 1 for part in parts
    )
    if not alike:
        raise NotFusable(f"self.{_dotted(place)} is made up differently from trial to trial")
    stacked = [torch.stack(part) if isinstance(part[0], Tensor) else part[0] for part in parts]
    return pytree.tree_unflatten(stacked if leaves else [], spec)


def _may_vary(values: Sequence[Any], always: bool) -> bool:
    """Whether a place becomes a tensor: it holds numbers with a point, and they differ or are said to."""
    return all(type(value) is float for value in values) and (always or not _all_same(values))


def _all_same(values: Sequence[Any]) -> bool:
    return all(same(values[0], other) for other in values[1:])


def _refusal(reason: str, attribute: str | None) -> Callable[[Any], Any]:
    def refuse(_: Any) -> Any:
        raise NotFusable(reason, attribute)

    return refuse


def _names(attributes: Mapping[str, Any]) -> list[str]:
    return [name for name in attributes if name not in _OWN]


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """A module's plain attributes: no parameters, buffers, submodules, and nothing of Lightning's or torch's own."""
    return [(name, module.__dict__[name]) for name in _names(module.__dict__)]


def _at(module: L.LightningModule, place: Place) -> Any:
    path, name = place
    return module.hparams[name] if path == HYPERPARAMETERS else module.get_submodule(path).__dict__[name]


def _dotted(place: Place) -> str:
    return ".".join(part for part in place if part)


def has_tensors(value: Any) -> bool:
    """Whether a value is, or holds in lists, tuples or dictionaries, a tensor."""
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def same(a: Any, b: Any, depth: int = 3) -> bool:
    """Whether two attributes of two modules mean the same."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, types.FunctionType):
        cells = zip(a.__closure__ or (), b.__closure__ or (), strict=False)
        return a.__code__ is b.__code__ and all(same(x.cell_contents, y.cell_contents, depth - 1) for x, y in cells)
    if isinstance(a, types.MethodType):
        return a.__func__ is b.__func__
    if isinstance(a, functools.partial):
        return same((a.func, a.args, a.keywords), (b.func, b.args, b.keywords), depth)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y, depth) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], depth) for key in a)
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    try:
        if bool(a == b):
            return True
    except Exception:  # noqa: BLE001 - a user's __eq__ may raise anything, and then nothing is known
        return False
    attributes = getattr(a, "__dict__", None)
    return bool(depth and attributes) and same(attributes, b.__dict__, depth - 1)
