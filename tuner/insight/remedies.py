"""What to change: the documented remedies of each verdict (documented.md §9), those first that the trials speak for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tuner.insight import subject as roles
from tuner.insight.across import Side, best_ones, edge, explored
from tuner.insight.finding import Advice, Finding
from tuner.insight.ranges import document, holding, in_words, moved, narrowed, widened
from tuner.insight.reading import Reading
from tuner.insight.subject import Subject
from tuner.insight.verdict import Judgement
from tuner.space import Choice, Parameter
from tuner.trial import Trial, TrialState

MOST_ADVICE = 6
MIN_TO_NARROW = 10
"""So many complete trials must speak before a range is narrowed around the best of them."""

ENOUGH, NEAR = 6, 1 / 3
"""From so many trials on, a best further than this from an end of its range says that the end is not where to go."""

ENOUGH_BEST = 3
FAR_BELOW = 30

RECTIFIERS = ("relu", "leaky_relu", "prelu", "maxout")
CLIPPING: Mapping[str, Any] = {
    "what": "norm to which gradients are clipped",
    "float": {"low": 0.1, "high": 10.0, "scale": "log", "default": 1.0},
    "priority": 8,
    "why": "a step cannot be longer than that times the learning rate",
}


class _Ward:
    """One study under treatment: makes advice about its hyperparameters, and remembers which it has."""

    def __init__(
        self, judgement: Judgement, subject: Subject, trials: Sequence[Trial], readings: Mapping[int, Reading]
    ) -> None:
        self.judgement, self.subject, self.trials, self.readings = judgement, subject, trials, readings

    def move(self, role: Sequence[str], side: Side, reason: str) -> Iterator[tuple[bool, Advice]]:
        """Advice to search every hyperparameter of a role further up or down, and whether the trials speak for it."""
        searched = self.subject.paths(role)
        for path in searched:
            parameter, value = self.subject.parameters[path], self.subject.params[path]
            made = moved(path.rpartition(".")[2], parameter, value, side)
            if made is None:
                continue
            at_edge, better = edge(parameter, value) == side, self._better(path) == side
            if not better and (self._better(path) is not None or self._seen_beyond(path, side)):
                continue  # the trials speak against it
            why = reason
            if better:
                why = f"{'more' if side == 'high' else 'less'} of it was better across the trials, and {reason}"
            elif at_edge:
                why = f"the best has {told(value)}, at the edge of its range, and {reason}"
            change = f"search {in_words(made)} (was {in_words(parameter)}; the best has {told(value)})"
            yield better or at_edge, Advice(path, change, why, document(made))
        if not searched and (lacking := self.subject.known(role)) is not None:
            yield from self._new(lacking, side, reason)

    def _new(self, path: str, side: Side, reason: str) -> Iterator[tuple[bool, Advice]]:
        """Advice to search what the model has and the space lacks."""
        value = self.subject.value(path)
        parameter = self._documented(path, value)
        if parameter is None:
            return
        made = moved(path.rpartition(".")[2], parameter, value, side) or parameter
        change = f"search {in_words(made)} (fixed at {told(value)} now)"
        yield False, Advice(path, change, reason, document(_alone(made, self.subject)))

    def _documented(self, path: str, value: Any) -> Parameter | None:
        """How a number would be searched: as documented or usual, in a range that holds the value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        shipped = self.subject.documented.parameters.get(path)
        if shipped is not None and not all(self._held(p, self.subject.params) in w for p, w in shipped.when.items()):
            return None  # it does not apply beside the trial's other values
        usual = USUAL.get(path.rpartition(".")[2])
        parameter = shipped or (Parameter.model_validate(usual) if usual is not None else None)
        return None if parameter is None else holding(parameter, value)

    def _held(self, path: str, params: Mapping[str, Any]) -> Any:
        return params.get(path, self.subject.value(path))

    def words(
        self, role: Sequence[str], wanted: Sequence[str], against: Callable[[Any], bool], reason: str
    ) -> Iterator[tuple[bool, Advice]]:
        """Advice to choose among some words of a choice, where the trial has one of the others."""
        path = self.subject.known(role)
        if path is None:
            return
        value = self.subject.value(path)
        if not against(value):
            return
        base = self.subject.parameters.get(path) or self.subject.documented.parameters.get(path)
        if base is None or not isinstance(base.range, Choice):
            return
        shipped = self.subject.documented.parameters.get(path)
        allowed = [*base.range.values, *(shipped.range.values if shipped and isinstance(shipped.range, Choice) else ())]
        kept = [word for word in wanted if word in allowed]
        if not kept:
            return
        values = [*kept, value] if value is not None and path not in self.subject.parameters else kept
        made = base.model_copy(update={"choice": Choice(values=list(dict.fromkeys(values)), default=kept[0])})
        change = f"search {in_words(made)} (the best has {told(value)})"
        if len(kept) == 1 and path in self.subject.parameters:
            yield False, Advice(path, f"fix it at {kept[0]} (the best has {told(value)})", reason, value=kept[0])
            return
        yield False, Advice(path, change, reason, document(_alone(made, self.subject)))

    def longer(self) -> Iterator[tuple[bool, Advice]]:
        """Advice for more epochs, if the best was still falling."""
        epochs = self.subject.spec.max_epochs
        if self.judgement.falling:
            r = self.judgement.reading
            times = 4 if r.val is not None and r.val >= 0.5 else 2
            reason = f"the best was still falling at its last epoch, by {r.fall:.0%} over the last quarter"
            yield (
                True,
                Advice("trainer.max_epochs", f"{times * epochs} instead of {epochs}", reason, value=times * epochs),
            )

    def slower(self) -> Iterator[tuple[bool, Advice]]:
        """Advice for a lower learning rate: below what diverged."""
        for path in self.subject.paths(roles.LEARNING_RATE):
            parameter = self.subject.parameters[path]
            rates = {t.number: (t.params or {}).get(path) for t in self.trials}
            bad = [v for n, v in rates.items() if v is not None and n in self.readings and self.readings[n].diverged]
            good = [
                v for n, v in rates.items() if v is not None and n in self.readings and not self.readings[n].diverged
            ]
            reason = "a step that is too long makes the loss grow instead of fall"
            if bad:
                reason = (
                    f"{len(bad)} trials diverged, with {self.subject.name(path)} from {told(min(bad))} on; {reason}"
                )
            well = [v for v in good if not bad or v < min(bad)]
            if isinstance(parameter.range, Choice):
                continue
            made = self._rates(parameter, max(well) if well else min([*bad, *good, parameter.range.low]) / 3)
            change = f"search {in_words(made)} (was {in_words(parameter)})"
            yield True, Advice(path, change, reason, document(made))
        if self.subject.paths(roles.LEARNING_RATE):
            return
        lacking = self.subject.known(roles.LEARNING_RATE)
        value = None if lacking is None else self.subject.value(lacking)
        if lacking is not None and isinstance(value, int | float):
            made = self._rates(self._documented_rate(lacking), value)
            change = f"search {in_words(made)} (fixed at {told(value)} now)"
            reason = "a step that is too long makes the loss grow instead of fall"
            yield True, Advice(lacking, change, reason, document(_alone(made, self.subject)))

    def _documented_rate(self, path: str) -> Parameter:
        return self.subject.documented.parameters.get(path) or Parameter.model_validate(USUAL["learning_rate"])

    @staticmethod
    def _rates(parameter: Parameter, highest: float) -> Parameter:
        """Three decades of learning rates up to the highest that is known not to be too high."""
        high = min(highest, 1.0)
        range_ = {"low": high / 1000, "high": high, "default": high / 30}
        told = {name: float(f"{rate:.2g}") for name, rate in range_.items()}
        others = {k: v for k, v in document(parameter).items() if k != "float"}
        return Parameter.model_validate(others | {"float": {**told, "scale": "log"}})

    def clipping(self) -> Iterator[tuple[bool, Advice]]:
        """Advice to clip gradients, if nothing clips them yet."""
        searched = self.subject.paths(roles.CLIP)
        if searched:
            yield from self.move(roles.CLIP, "low", "clipped gradients cannot make a step of any length")
            return
        path = "model.clip_norm" if self.subject.known(("clip_norm",)) else "trainer.gradient_clip_val"
        if self.subject.value(path) is not None:
            return
        made = Parameter.model_validate(CLIPPING)
        reason = "clipped gradients cannot make a step of any length"
        yield False, Advice(path, f"search {in_words(made)} (off now)", reason, document(made))

    def edges(self) -> Iterator[tuple[bool, Advice]]:
        """Advice to search beyond the edge at which the best lies."""
        for path, parameter in self.subject.parameters.items():
            value = self.subject.params.get(path)
            side = edge(parameter, value)
            if side is None:
                continue
            made = widened(path.rpartition(".")[2], parameter, value, side)
            if made is not None and _reaches_beyond(made, parameter, side):
                change = f"search {in_words(made)} (was {in_words(parameter)})"
                yield (
                    True,
                    Advice(path, change, f"the best has {told(value)}, at the edge of the range", document(made)),
                )

    def faster(self) -> Iterator[tuple[bool, Advice]]:
        """Advice for a learning rate of another order, where nothing has moved."""
        path = self.subject.known(roles.LEARNING_RATE)
        value = None if path is None else self.subject.value(path)
        usual = None if path is None else self._documented(path, value)
        if path is None or usual is None or isinstance(usual.range, Choice) or not isinstance(value, int | float):
            return
        default = self._usual_rate(path)
        low = float(f"{min(value, default):.1g}")
        rates = {"low": low, "high": usual.range.high, "scale": "log", "default": default}
        others = {k: v for k, v in document(_alone(usual, self.subject)).items() if k != "float"}
        made = Parameter.model_validate(others | {"float": rates})
        change = f"search {in_words(made)} (the best has {told(value)})"
        reason = "it has hardly moved, so its steps are too short"
        if not self.judgement.slow:
            reason = f"its steps are short: {told(default)} is the usual rate"
        yield True, Advice(path, change, reason, document(made))

    def below_the_usual(self) -> bool:
        """Whether the learning rate is far below the one that is documented for the model."""
        path = self.subject.known(roles.LEARNING_RATE)
        if path is None or path not in self.subject.documented.parameters:
            return False
        rate = self.subject.value(path)
        return isinstance(rate, int | float) and rate < self._usual_rate(path) / FAR_BELOW

    def _usual_rate(self, path: str) -> float:
        """The documented default beside the trial's other values."""
        documented = self._documented_rate(path)
        default = documented.default_for({p: self.subject.value(p) for p in documented.default_when})
        return float(default) if isinstance(default, int | float) else 0.0

    def _seen_beyond(self, path: str, side: Side) -> bool:
        """Whether so many trials were made that those further on would have been better, if that is where to go."""
        tried = [t for t in self.trials if t.result is not None and t.confirms is None and path in (t.params or {})]
        at = self.subject.place(path)
        inside = at is not None and (at < 1 - NEAR if side == "high" else at > NEAR)
        return inside and len(tried) >= ENOUGH

    def _better(self, path: str) -> Side | None:
        return self.judgement.trends[path].better if path in self.judgement.trends else None


def narrower(subject: Subject, trials: Sequence[Trial]) -> Iterator[Advice]:
    """Advice to search only where the best trials lie."""
    complete = [t for t in trials if t.result and t.result.state is TrialState.COMPLETE and t.confirms is None]
    if len(complete) < MIN_TO_NARROW:
        return
    best = best_ones(trials, subject.spec.goal)
    for path, parameter in subject.parameters.items():
        value = subject.params.get(path)
        seen = [(t.params or {})[path] for t in best if path in (t.params or {})]
        if value is None or not parameter.range.contains(value) or len(seen) < ENOUGH_BEST:
            continue
        if not explored(path, parameter, value, trials):
            continue
        made = narrowed(parameter, seen, value)
        if made is not None:
            change = f"search {in_words(made)} (was {in_words(parameter)})"
            first, last = told(min(seen)), told(max(seen))
            where = f"all have {first}" if first == last else f"lie between {first} and {last}"
            yield Advice(path, change, f"the best {len(seen)} trials {where}", document(made))


def remedies(
    judgement: Judgement, subject: Subject, trials: Sequence[Trial], readings: Mapping[int, Reading]
) -> list[Advice]:
    """The remedies for a verdict, in order: those that the trials speak for first, then as documented."""
    found = list(PLANS[judgement.verdict](_Ward(judgement, subject, trials, readings)))
    found.sort(key=lambda pair: not pair[0])
    told_once: dict[str, Advice] = {}
    for _, advice in found:
        told_once.setdefault(advice.hyperparameter, advice)
    return list(told_once.values())[:MOST_ADVICE]


def _underfitting(ward: _Ward) -> Iterator[tuple[bool, Advice]]:
    yield from ward.longer()
    if ward.judgement.slow or ward.below_the_usual():
        yield from ward.faster()
    yield from ward.words(
        roles.ACTIVATION,
        RECTIFIERS,
        lambda v: v in ("sigmoid", "tanh"),
        "rectifiers keep gradients alive, sigmoids do not",
    )
    adaptive = ("adam", "adamw", "rmsprop", "adagrad")
    if not ward.subject.value("model.momentum"):
        yield from ward.words(
            roles.OPTIMIZER, adaptive, lambda v: v == "sgd", "an adaptive learning rate fits the step to each weight"
        )
    yield from ward.move(roles.UNITS, "high", "a larger network can fit more")
    yield from ward.move(roles.DEPTH, "high", "more layers compose more features")
    yield from ward.move(roles.LEARNING_RATE, "high", "larger steps get further in the same epochs")
    hindered = "what keeps a network from fitting is not needed while it underfits"
    for role, little in ((roles.DROPOUT, 0.2), (roles.DECAY, 1e-2), (roles.PENALTY, 1e-4)):
        path = ward.subject.known(role)
        if path is not None and (ward.subject.value(path) or 0.0) >= little:
            yield from ward.move(role, "low", hindered)


def _overfitting(ward: _Ward) -> Iterator[tuple[bool, Advice]]:
    if ward.subject.spec.patience is None:
        epochs = max(3, ward.subject.spec.max_epochs // 4)
        reason = "early stopping ends a trial before it learns the rest by heart"
        yield False, Advice("search.patience", f"{epochs} instead of never", reason, value=epochs)
    yield from ward.move(roles.PENALTY, "high", "a penalty on the weights keeps the function simple")
    yield from ward.move(roles.DECAY, "high", "weight decay keeps weights small")
    yield from ward.move(roles.DROPOUT, "high", "dropout averages over networks, none of which knows everything")
    yield from ward.words(
        roles.NORM, ("batch", "layer"), lambda v: v in (None, "none"), "the noise of its batches regularises"
    )
    yield from ward.move(roles.UNITS, "low", "a smaller network can learn less by heart")
    yield from ward.move(roles.DEPTH, "low", "a shallower network can learn less by heart")


def _diverging(ward: _Ward) -> Iterator[tuple[bool, Advice]]:
    yield from ward.slower()
    yield from ward.words(
        roles.SCHEDULE,
        ("exponential", "inverse", "sqrt"),
        lambda v: v in (None, "none"),
        "a learning rate that decays settles where a constant one jumps about",
    )
    yield from ward.move(roles.BATCH, "high", "larger batches make steadier steps")
    yield from ward.clipping()


def _vanishing(ward: _Ward) -> Iterator[tuple[bool, Advice]]:
    yield from ward.words(
        roles.ACTIVATION, RECTIFIERS, lambda v: v in ("sigmoid", "tanh"), "rectifiers let gradients through whole"
    )
    yield from ward.words(
        roles.NORM,
        ("batch", "layer"),
        lambda v: v in (None, "none"),
        "normalised inputs keep activations from saturating",
    )
    yield from ward.move(roles.DEPTH, "low", "every layer that saturates shrinks the gradient again")


def _learned_nothing(ward: _Ward) -> Iterator[tuple[bool, Advice]]:
    yield from ward.move(roles.LEARNING_RATE, "high", "a step may be too short to get anywhere")
    yield from ward.words(
        roles.NORM, ("batch", "layer"), lambda v: v in (None, "none"), "normalised inputs make larger steps possible"
    )
    yield from ward.move(roles.UNITS, "high", "a larger network may find what a small one cannot")
    yield from ward.longer()


def _fine(ward: _Ward) -> Iterator[tuple[bool, Advice]]:
    yield from ward.edges()
    yield from ward.longer()
    yield from ((False, advice) for advice in narrower(ward.subject, ward.trials))


PLANS: Mapping[Finding, Callable[[_Ward], Iterator[tuple[bool, Advice]]]] = {
    "underfitting": _underfitting,
    "overfitting": _overfitting,
    "diverging": _diverging,
    "vanishing": _vanishing,
    "learned_nothing": _learned_nothing,
    "fine": _fine,
}

USUAL: Mapping[str, Mapping[str, Any]] = {
    "learning_rate": {"float": {"low": 1e-4, "high": 1.0, "scale": "log"}, "priority": 1},
    "lr": {"float": {"low": 1e-4, "high": 1.0, "scale": "log"}, "priority": 1},
    "dropout": {"float": {"low": 0.0, "high": 0.6}, "priority": 9},
    "weight_decay": {"float": {"low": 1e-6, "high": 0.1, "scale": "log"}, "priority": 9},
    "hidden_units": {"int": {"low": 16, "high": 512, "scale": "log"}, "priority": 3},
    "hidden_size": {"int": {"low": 16, "high": 512, "scale": "log"}, "priority": 3},
    "hidden_dim": {"int": {"low": 16, "high": 512, "scale": "log"}, "priority": 3},
    "width": {"int": {"low": 16, "high": 512, "scale": "log"}, "priority": 3},
    "batch_size": {"choice": {"values": [16, 32, 64, 128, 256]}, "priority": 2},
}
"""How hyperparameters of these names are searched in models that have no documented space."""


def told(value: Any) -> str:
    """A value in a sentence."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _alone(parameter: Parameter, subject: Subject) -> Parameter:
    """A documented parameter without conditions on what is not searched here."""
    kept = {k: v for k, v in parameter.when.items() if k in subject.parameters}
    return parameter.model_copy(
        update={
            "when": kept,
            "default_when": {k: v for k, v in parameter.default_when.items() if k in subject.parameters},
        }
    )


def _reaches_beyond(made: Parameter, parameter: Parameter, side: Side) -> bool:
    new, old = made.range, parameter.range
    if isinstance(new, Choice) or isinstance(old, Choice):
        return isinstance(new, Choice) and isinstance(old, Choice) and any(v not in old.values for v in new.values)
    return new.high > old.high if side == "high" else new.low < old.low
