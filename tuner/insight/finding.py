"""The nouns of a diagnosis: the verdict, the numbers that speak for it, and the remedies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuner.trial import Report

Finding = Literal["underfitting", "overfitting", "diverging", "vanishing", "learned_nothing", "fine"]
Confidence = Literal["high", "medium", "low"]
Curves = Mapping[int, Sequence[Report]]
"""What trials said after each epoch, by the number of the trial (`Store.curves`)."""


@dataclass(frozen=True)
class Evidence:
    """One number that speaks for or against the verdict.

    Attributes:
        measure: what was measured, in a few words.
        value: the number.
        threshold: what it is compared with; None where there is nothing to compare.
        says: a sentence with both.
    """

    measure: str
    value: float
    threshold: float | None
    says: str


@dataclass(frozen=True)
class Advice:
    """One remedy: a hyperparameter of the study, or one that the model has and the space lacks.

    Attributes:
        hyperparameter: its config path.
        change: what to do with it, with a range, in words.
        reason: why, in words.
        parameter: the parameter as it is to stand in the next study's space; None where it is not searched there.
        value: what it is to be fixed at in the next study, if it is not searched there.
    """

    hyperparameter: str
    change: str
    reason: str
    parameter: Mapping[str, Any] | None = None
    value: Any = None


@dataclass(frozen=True)
class Diagnosis:
    """What a study, or one trial of it, taught.

    Attributes:
        study: its name.
        verdict: what limits it.
        confidence: how sure that is.
        headline: the answer in a sentence, with numbers.
        evidence: the numbers and thresholds that made it say so, the weightiest first.
        advice: remedies, in the order in which to try them.
        warnings: what else is worth knowing: a best at the edge of a range, a parameter that did not matter, …
        idle: the paths of parameters that did not matter.
        trial: the number of the trial that was read; of a study, that of its best (None without one).
        alone: whether that trial alone was asked about, not the study.
    """

    study: str
    verdict: Finding
    confidence: Confidence
    headline: str
    evidence: tuple[Evidence, ...] = ()
    advice: tuple[Advice, ...] = ()
    warnings: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    trial: int | None = None
    alone: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it in plain sentences, the answer with its first evidence first; no markup."""
        advised = [f"{i}. {a.hyperparameter}: {a.change}: {a.reason}" for i, a in enumerate(self.advice, 1)]
        if not advised and self.verdict == "fine" and not self.alone:
            advised = ["By these numbers there is nothing to change."]
        return (self.headline, *(e.says for e in self.evidence[1:]), *advised, *self.warnings)

    def to_json(self) -> dict[str, Any]:
        """As `tuner diagnose --json` prints it."""
        return {
            "study": self.study,
            "trial": self.trial,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "headline": self.headline,
            "evidence": [vars(e) for e in self.evidence],
            "advice": [
                {"hyperparameter": a.hyperparameter, "change": a.change, "reason": a.reason}
                | ({"parameter": dict(a.parameter)} if a.parameter is not None else {"value": a.value})
                for a in self.advice
            ],
            "warnings": list(self.warnings),
        }
