"""From readings to a verdict: the thresholds, and what is weighed against what.

Losses are shares of the yardstick (`reading.py`): 1 is as bad as knowing nothing, 0 is perfect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuner.insight.across import Trend, edge
from tuner.insight.finding import Confidence, Evidence, Finding
from tuner.insight.reading import BLOWN_UP, CLASSES, NUMBER, THROWN, Reading, Yardstick
from tuner.insight.subject import CAPACITY, REGULARISERS, Subject

NOTHING = 0.97
"""A validation loss that never falls below this has learned nothing."""

NOTHING_OF_NUMBERS = 0.85
"""The same for numbers: the variance of the target in the validation part is not quite that of the training part."""

LUCK = 0.85
"""A validation loss down to this is luck while the training loss never fell below `NOTHING`: the part may be small."""

BAD_FIT, BAD_FIT_OF_CLASSES = 0.6, 0.3
"""A training loss above this fits badly. Classes can mostly be told; numbers and text have noise of their own."""

SOME_FIT = 0.1
"""Above this it fits badly if more capacity is seen to help."""

GAP, GAP_WITH_EVIDENCE = 0.1, 0.07
"""A validation loss so far above the training loss is overfitting; nearer, if more regularisation is seen to help."""

TIMES = 1.5
"""And it must be so many times the training loss."""

BY_HEART = 0.6
"""Below this training loss a net has learned its training data, whatever it makes of others."""

RISE, OPENING = 0.02, 0.15
"""A validation loss that rises after its best epoch while the two losses move so far apart."""

FALL, FALLEN = 0.05, 0.03
"""Still falling: in the last quarter of the epochs by this share of itself, and by this share of the yardstick."""

VANISHED, EXPLODED = 1e-2, 1e2
"""Gradient norms of the first layer, as a share of the last layer's."""

NEARLY_NOTHING = 0.9
"""A training loss above this has not left what knowing nothing gives."""

CLOSE = 1.25
"""A number within so many times its threshold is close to it."""

DEEP = 4
"""So many sigmoid layers let next to nothing through: each shrinks a gradient by 4 at least."""

DRIFTED = 3.0
"""Deviations by which the inputs of an activation move over training before it is worth a word."""

MOST = 0.5
"""A share of the trials."""

JUMPING = 0.03
"""A training loss that rises so much from epoch to epoch, on the average over its epochs, jumps about."""

UNMOVED = 1.03
"""A training loss that never fell to this has not even learned how frequent the labels are: its steps are too short, or
so long that it jumps about."""

SEVERAL = 0.25
"""A share of the trials from which on they are not a few odd ones."""

WIDE = 4
"""Capacity was tried out if its largest value is so many times its smallest."""


@dataclass
class Judgement:
    """A verdict in the making.

    Attributes:
        verdict: what limits the trial or the study.
        reading: of the best trial.
        evidence: for it, the weightiest first.
        doubts: reasons to be less sure.
        support: reasons, from across the trials, to be more sure.
        notes: sentences for the reader.
        falling: whether the best was still falling at its last epoch.
        slow: whether it had hardly moved by then.
        trends: what got better along which hyperparameter.
    """

    verdict: Finding
    reading: Reading
    stick: Yardstick
    evidence: list[Evidence] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    support: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    falling: bool = False
    slow: bool = False
    trends: Mapping[str, Trend] = field(default_factory=dict)

    @property
    def confidence(self) -> Confidence:
        """High unless there are more doubts than support; two of them make it low."""
        balance = len(self.doubts) - len(self.support)
        return "high" if balance <= 0 else "medium" if balance == 1 else "low"

    def loss(self, share: float | None) -> str:
        """A loss in its own units, as learning curves show it."""
        return "unknown" if share is None else f"{share * (self.stick.value or 1.0):.3g}"

    @property
    def nothing(self) -> str:
        """What knowing nothing gives, in words with the number."""
        return f"{self.loss(1.0)}, {self.stick.in_words}"

    def headline(self, study: str, number: int, *, alone: bool) -> str:
        """The answer in a sentence."""
        who = f"Trial {number} of {study}" if alone else study
        told = {
            "underfitting": "underfits",
            "overfitting": "overfits",
            "diverging": "diverges",
            "vanishing": "does not learn, because gradients vanish before they reach its first layers",
            "learned_nothing": "has learned nothing",
            "fine": "is fine",
        }[self.verdict]
        why = f": {'; '.join(self.doubts)}" if self.doubts else ""
        first = f": {_lowered(self.evidence[0].says)}" if self.evidence else "."
        return f"{who} {told} (confidence {self.confidence}{why}){first}"


def judge_trial(reading: Reading, stick: Yardstick, subject: Subject) -> Judgement:
    """The verdict on one trial, from its own curves."""
    judgement = _judged(reading, stick, subject)
    if stick.value is None or stick.guessed:
        _without_yardstick(judgement)
    if reading.cut and judgement.verdict in ("underfitting", "fine", "learned_nothing"):
        judgement.doubts.append("it was ended early")
    return judgement


def judge_study(
    leaders: Sequence[Reading],
    every: Sequence[Reading],
    stick: Yardstick,
    subject: Subject,
    along: Mapping[str, Trend],
) -> Judgement:
    """The verdict on a study.

    Args:
        leaders: of its best trials, the best first; none if no trial has ever had a value.
        every: of all its trials.
        stick: the yardstick.
        subject: the study, and its best trial.
        along: the trends.
    """
    diverged = [r for r in every if r.diverged]
    if not leaders:
        return _all_diverged(every, diverged, stick)
    judged = [_judged(reading, stick, subject, along) for reading in leaders]
    votes = Counter(j.verdict for j in judged)
    most, count = votes.most_common(1)[0]
    verdict = judged[0].verdict if votes[judged[0].verdict] == count else most
    judgement = next(j for j in judged if j.verdict == verdict)
    judgement.trends = along
    if votes[verdict] < len(judged):
        others = ", ".join(sorted({_word(j.verdict) for j in judged if j.verdict != verdict}))
        judgement.doubts.append(f"{votes[verdict]} of the {len(judged)} best trials say so, the others: {others}")
    judgement = _with_divergence(judgement, every, diverged, stick)
    if judgement.verdict in ("learned_nothing", "underfitting") and _at_nothing(judgement.reading, stick):
        judgement = _why_nothing(judgement, every)
    if stick.value is None or stick.guessed:
        _without_yardstick(judgement)
    if len(every) < 3:
        judgement.doubts.append(f"{len(every)} trial{'s' * (len(every) > 1)} only")
    return judgement


def _judged(r: Reading, stick: Yardstick, subject: Subject, along: Mapping[str, Trend] | None = None) -> Judgement:
    """The flow, on one trial's reading, with what is known across trials."""
    along = along or {}
    made = Judgement("fine", r, stick, trends=along)
    made.falling = r.best_at_the_end and r.fall >= FALL and r.fallen >= FALLEN and not r.cut
    if r.diverged:
        return _diverging(made)
    if _vanishing(made, subject):
        return made
    if _at_nothing(r, stick):
        if r.lowest_train is not None and r.lowest_train < BY_HEART:
            return _by_heart(made)
        return _short_of_nothing(made)
    if _overfits(made, subject, along):
        return made
    if _underfits(made, subject, along):
        return made
    return _fine(made)


def _at_nothing(r: Reading, stick: Yardstick) -> bool:
    """Whether it got no further than knowing nothing.

    While not even the training loss got below that, a validation loss a little below it is luck.
    """
    if r.val is None or stick.value is None:
        return False
    untrained = not stick.guessed and r.lowest_train is not None and r.lowest_train >= NOTHING
    return r.val >= (LUCK if untrained else _bar_of_nothing(stick))


def _bar_of_nothing(stick: Yardstick) -> float:
    return NOTHING_OF_NUMBERS if stick.kind == NUMBER else NOTHING


def _diverging(made: Judgement) -> Judgement:
    made.verdict = "diverging"
    r = made.reading
    if r.last_train is not None and r.last_train > 1:
        says = (
            f"Its training loss ended at {made.loss(r.last_train)}, {_times(r.last_train)} what knowing nothing gives "
            f"({made.nothing}); from {BLOWN_UP} times on it has diverged."
        )
        made.evidence.append(Evidence("last training loss", r.last_train, BLOWN_UP, says))
    elif r.jumps > 0 and r.val is not None:
        says = f"Its training loss is thrown about: it rose by {made.loss(r.jumps)} in an epoch, on the average."
        made.evidence.append(Evidence("rise of the training loss in an epoch", r.jumps, THROWN, says))
    else:
        says = f"Its loss became infinite or no number after {_epochs(r.epochs)}."
        made.evidence.append(Evidence("epochs before it diverged", float(r.epochs), None, says))
    return made


def _vanishing(made: Judgement, subject: Subject) -> bool:
    """Whether next to nothing arrives at the first layers while the fit is bad; measured, or inferred."""
    r = made.reading
    stuck = r.lowest_train is None or r.lowest_train >= BY_HEART
    if r.gradients is not None:
        if r.gradients < VANISHED and stuck:
            made.verdict = "vanishing"
            says = (
                f"The gradient norm of its first layer is {r.gradients:.1e} of the last layer's (below {VANISHED:g}), "
                f"and its training loss never fell below {made.loss(r.lowest_train)} ({made.nothing})."
            )
            made.evidence.append(Evidence("gradient norm, first layer / last", r.gradients, VANISHED, says))
        return made.verdict == "vanishing"
    flat = _at_nothing(r, made.stick) and (r.lowest_train is None or r.lowest_train >= NEARLY_NOTHING)
    if flat and not made.falling and subject.saturating >= DEEP:
        made.verdict = "vanishing"
        says = (
            f"It has {subject.saturating} {subject.activation} layers without normalisation (from {DEEP} on it "
            f"counts), which shrink a gradient to {0.25**subject.saturating:.1e} at most, and its training loss never "
            f"fell below {made.loss(r.lowest_train)} ({made.nothing})."
        )
        made.evidence.append(Evidence("layers that saturate", float(subject.saturating), float(DEEP), says))
        made.doubts.append("inferred: gradient norms were not logged")
        made.notes.append(
            "To measure gradient norms by layer: trainer: {callbacks: [{class_path: tuner.models.LayerStatistics}]}."
        )
        return True
    return False


def _by_heart(made: Judgement) -> Judgement:
    """It learned its training data, and nothing of it carries over."""
    made.verdict = "overfitting"
    r = made.reading
    low = r.lowest_train or 0.0
    says = (
        f"Its training loss fell to {made.loss(low)}, but its validation loss never below {made.loss(r.val)} "
        f"({made.nothing}): it learned its training data by heart, and nothing of that carries over."
    )
    made.evidence.append(Evidence("lowest training loss", low, BY_HEART, says))
    made.notes.append(
        "What is learned and does not carry over may be wrong labels, or a split whose parts have nothing in common: "
        "look at the data before you tune on."
    )
    return made


def _nothing(made: Judgement) -> Judgement:
    made.verdict = "learned_nothing"
    r, bar = made.reading, _bar_of_nothing(made.stick)
    says = (
        f"Its validation loss never fell below {made.loss(r.val)}, and {made.nothing}, is what knowing nothing gives "
        f"({bar:.0%} of that is the bar)."
    )
    made.evidence.append(Evidence("lowest validation loss", r.val or 1.0, bar, says))
    if r.lowest_train is not None:
        says = (
            f"Its training loss never fell below {made.loss(r.lowest_train)}: not even the training data were learned."
        )
        made.evidence.append(Evidence("lowest training loss", r.lowest_train, BY_HEART, says))
    made.notes.append(
        "Before you tune on: do inputs and labels belong together? Draw a batch and look; train on ten samples until "
        "the loss is 0."
    )
    return made


def _short_of_nothing(made: Judgement) -> Judgement:
    """It never got below what knowing nothing gives: on its way there, hardly begun, jumping about, or at its end."""
    r = made.reading
    if made.falling or r.steady:
        return _falling(made)
    if r.lowest_train is None or r.lowest_train < UNMOVED:
        return _nothing(made)
    if r.jumps >= JUMPING:
        made.verdict = "diverging"
        says = (
            f"Its training loss jumps about: it rose by {made.loss(r.jumps)} in an epoch, on the average, and never "
            f"fell below {made.loss(r.lowest_train)} ({made.nothing}, is what knowing nothing gives)."
        )
        made.evidence.append(Evidence("rise of the training loss in an epoch", r.jumps, JUMPING, says))
        return made
    made.verdict, made.slow = "underfitting", True
    says = (
        f"In {_epochs(r.epochs)} its training loss never fell below {made.loss(r.lowest_train)}: it has not even "
        f"learned how frequent the labels are, which gives {made.nothing}. It has hardly moved from where it began."
    )
    made.evidence.append(Evidence("lowest training loss", r.lowest_train, UNMOVED, says))
    return made


def _falling(made: Judgement) -> Judgement:
    made.verdict, made.falling, made.slow = "underfitting", True, True
    made.evidence.append(_still_falling(made))
    r = made.reading
    if r.train is not None:
        says = f"Its training loss is still {made.loss(r.train)} ({made.nothing}, is what knowing nothing gives)."
        made.evidence.append(Evidence("training loss", r.train, None, says))
    return made


def _still_falling(made: Judgement) -> Evidence:
    r = made.reading
    which = f"from {FALL:.0%} on it counts as falling" if r.fall >= FALL else "it fell nearly every epoch"
    says = (
        f"It ended while it learned: over the last quarter of its {_epochs(r.epochs)} its validation loss fell by "
        f"{r.fall:.1%} to {made.loss(r.val)} ({which}), and epoch {r.best_epoch} is its best."
    )
    return Evidence("fall over the last quarter", r.fall, FALL if r.fall >= FALL else None, says)


def _overfits(made: Judgement, subject: Subject, along: Mapping[str, Trend]) -> bool:
    r = made.reading
    if r.gap is None or r.train is None or r.val is None:
        return False
    helps = [path for path in subject.paths(REGULARISERS) if _better(along, path) == "high"]
    bar = GAP_WITH_EVIDENCE if helps else GAP
    kept = r.gap >= bar and r.val >= TIMES * r.train
    later = r.rise >= RISE and r.opening >= OPENING
    if not (kept or later):
        return False
    made.verdict = "overfitting"
    if kept:
        says = (
            f"At its best epoch ({r.best_epoch} of {r.epochs}) the training loss is {made.loss(r.train)}, but the "
            f"validation loss {made.loss(r.val)}: a gap of {r.gap:.0%} of what knowing nothing gives ({made.nothing}); "
            f"from {bar:.0%} on it overfits."
        )
        made.evidence.append(Evidence("gap between validation and training", r.gap, bar, says))
        if r.gap < CLOSE * bar:
            made.doubts.append("close to the threshold")
    if later:
        says = (
            f"After epoch {r.best_epoch} the validation loss rose from {made.loss(r.val)} to {made.loss(r.last_val)}, "
            f"while the training loss went from {made.loss(r.train)} to {made.loss(r.last_train)}: it goes on to learn "
            f"by heart (they moved apart by {r.opening:.0%} of what knowing nothing gives; {OPENING:.0%} is the bar)."
        )
        made.evidence.append(Evidence("moved apart after the best epoch", r.opening, OPENING, says))
    for path in helps:
        made.evidence.append(_trend(along[path], "more", subject))
        made.support.append("more regularisation helped")
    for path in subject.paths(CAPACITY):
        if _better(along, path) == "low":
            made.evidence.append(_trend(along[path], "less", subject))
            made.support.append("less capacity helped")
    return True


def _underfits(made: Judgement, subject: Subject, along: Mapping[str, Trend]) -> bool:
    r, known = made.reading, made.stick.value is not None and not made.stick.guessed
    bar = BAD_FIT_OF_CLASSES if made.stick.kind == CLASSES else BAD_FIT
    grown = [path for path in subject.paths(CAPACITY) if _better(along, path) == "high"]
    freed = [path for path in subject.paths(REGULARISERS) if _better(along, path) == "low"]
    parameters, params = subject.parameters, subject.params
    at_top = [path for path in subject.paths(CAPACITY) if edge(parameters[path], params[path]) == "high"]
    fit, which = r.fit, "training" if r.fit == r.train else "validation"
    bad = known and fit is not None and fit >= bar
    some = known and fit is not None and fit >= SOME_FIT
    tried_out = [p for p in subject.paths(CAPACITY) if subject.breadth(p) >= WIDE and p in along]
    if bad and tried_out and not (made.falling or grown or freed or at_top):
        made.notes.append(
            f"Its {which} loss is {made.loss(fit)} ({made.nothing}, is what knowing nothing gives), but neither a "
            f"longer run nor more {subject.names(tried_out)} lowered it here: what is left may be noise in the data."
        )
        made.doubts.append("the fit is not close, and the data may be noisy")
        return False
    if not (bad or made.falling or (some and (grown or (freed and at_top)))):
        return False
    made.verdict = "underfitting"
    if fit is not None and (bad or some):
        here = bar if bad else SOME_FIT
        says = (
            f"Its {which} loss is {made.loss(fit)}, {fit:.0%} of what knowing nothing gives ({made.nothing}): the fit "
            f"is bad from {here:.0%} on{'' if bad else ' where more capacity helps'}."
        )
        made.evidence.append(Evidence(f"{which} loss", fit, here, says))
        if bad and fit < CLOSE * bar:
            made.doubts.append("close to the threshold")
    if made.falling:
        made.evidence.append(_still_falling(made))
        made.support.append("it was still falling")
    for path in grown:
        made.evidence.append(_trend(along[path], "more", subject))
        made.support.append("more capacity helped")
    for path in freed:
        made.evidence.append(_trend(along[path], "less", subject))
        made.support.append("less regularisation helped")
    if r.gap is not None and r.gap < GAP:
        says = f"Validation is no worse than training: a gap of {r.gap:.0%}, below {GAP:.0%}."
        made.evidence.append(Evidence("gap between validation and training", r.gap, GAP, says))
    if bad and not (made.support or at_top):
        made.doubts.append("nothing across the trials says what would help")
    return True


def _fine(made: Judgement) -> Judgement:
    r = made.reading
    if r.train is not None and r.val is not None and r.gap is not None:
        says = (
            f"At its best epoch ({r.best_epoch} of {r.epochs}) the training loss is {made.loss(r.train)} and the "
            f"validation loss {made.loss(r.val)}"
        )
        if not made.stick.guessed:
            says += (
                f", where knowing nothing gives {made.nothing}: it fits, and the gap is {max(0.0, r.gap):.1%} of that "
                f"(overfitting begins at {GAP:.0%})"
            )
        made.evidence.append(Evidence("gap between validation and training", r.gap, GAP, f"{says}."))
    elif r.val is not None:
        says = f"Its validation loss fell to {made.loss(r.val)}; no training loss is logged beside it."
        made.evidence.append(Evidence("lowest validation loss", r.val, NOTHING, says))
        made.doubts.append("without a training loss overfitting cannot be seen")
    _drifting(made)
    return made


def _drifting(made: Judgement) -> None:
    """Words on layer statistics that were logged."""
    r = made.reading
    if r.drift is not None and r.drift >= DRIFTED:
        made.notes.append(
            f"The inputs of a layer's activation moved by {r.drift:.1f} of their deviations over training (from "
            f"{DRIFTED:g} on it is worth a word): normalisation before activations stops such drift."
        )
    if r.gradients is not None and r.gradients > EXPLODED:
        made.notes.append(
            f"The gradient norm of the first layer is {r.gradients:.1e} times the last layer's: gradients explode. "
            "Clip them (clip_norm), or normalise."
        )


def _with_divergence(
    judgement: Judgement, every: Sequence[Reading], diverged: Sequence[Reading], stick: Yardstick
) -> Judgement:
    """What trials that diverged say of the study."""
    if not diverged:
        return judgement
    share = len(diverged) / len(every)
    says = f"{len(diverged)} of {len(every)} trials diverged."
    found = Evidence("share of trials that diverged", share, MOST, says)
    useless = judgement.reading.val is None or judgement.reading.val >= MOST
    if judgement.verdict == "diverging" or (share >= MOST and useless):
        other = judgement.reading
        made = (
            judgement
            if judgement.verdict == "diverging"
            else replace(judgement, verdict="diverging", evidence=[], notes=[])
        )
        made.evidence.insert(0, found)
        if made is not judgement and not stick.guessed:
            says = f"The best that did not diverge has a validation loss of {made.loss(other.val)}."
            made.evidence.append(Evidence("lowest validation loss", other.val or 0.0, MOST, says))
        return made
    judgement.notes.append(says)
    return judgement


def _all_diverged(every: Sequence[Reading], diverged: Sequence[Reading], stick: Yardstick) -> Judgement:
    """No trial has ever had a value."""
    made = Judgement("diverging", every[0], stick)
    share = len(diverged) / len(every)
    says = f"{len(diverged)} of {len(every)} trials diverged before they had a finite validation loss."
    made.evidence.append(Evidence("share of trials that diverged", share, MOST, says))
    return made


def _why_nothing(judgement: Judgement, every: Sequence[Reading]) -> Judgement:
    """The best trials have learned nothing: do others say why?"""
    told = [r for r in every if r.val is not None and not r.diverged]
    lowest = [r.lowest_train for r in told if r.lowest_train is not None]
    by_heart = [low for low in lowest if low < BY_HEART]
    if lowest and len(by_heart) >= MOST * len(lowest):
        most = min((r for r in told if r.lowest_train is not None), key=lambda r: r.lowest_train or 0.0)
        made = _by_heart(replace(judgement, verdict="overfitting", reading=most, evidence=[], support=[]))
        made.notes.insert(0, f"{len(by_heart)} of {len(lowest)} trials learned their training data by heart.")
        return made
    done = [r for r in told if not r.cut]
    flat = [r for r in done if not (r.steady or r.fall >= FALL) and (r.lowest_train or 0.0) < UNMOVED]
    if judgement.verdict == "underfitting" and flat and len(flat) >= SEVERAL * len(done):
        made = _nothing(replace(judgement, verdict="learned_nothing", evidence=[], support=[], falling=False))
        says = f"{len(flat)} of {len(done)} trials had stopped falling there, so a longer run would not help."
        made.evidence.append(Evidence("share of trials that stopped falling", len(flat) / len(done), SEVERAL, says))
        return made
    return judgement


def _without_yardstick(judgement: Judgement) -> None:
    judgement.doubts.append("what knowing nothing would give is not known")
    judgement.notes.append(
        "The module logs no yardstick (val_label_entropy, the entropy of the labels), so this rests on the training "
        f"and validation losses alone, compared with {judgement.stick.in_words}."
    )


def _better(along: Mapping[str, Trend], path: str) -> str | None:
    return along[path].better if path in along else None


def _trend(trend: Trend, which: str, subject: Subject) -> Evidence:
    says = (
        f"Across {trend.trials} trials {which} {subject.name(trend.path)} was better (rank correlation "
        f"{abs(trend.correlation):.2f}, above {trend.threshold:.2f})."
    )
    return Evidence(f"{which} {subject.name(trend.path)} was better", abs(trend.correlation), trend.threshold, says)


def _times(share: float) -> str:
    return f"{share:.3g} times" if share < 1e4 else f"{share:.1e} times"


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _word(verdict: Finding) -> str:
    return verdict.replace("_", " ")


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
