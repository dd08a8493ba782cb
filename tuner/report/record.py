"""What is told of one study, as plain nouns: everything that a page or a note is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.best import Chosen
from tuner.insight import Diagnosis, Importance
from tuner.report.words import without_root
from tuner.space import Parameter, Space
from tuner.trial import Objective, Report, Trial, TrialState


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands.

    Attributes:
        name: the study's.
        state: running, stopped, interrupted, complete or failed.
        objective: the metric, and which way is better.
        space: what is searched.
        trials: all of them, confirming runs included.
        chosen: the best with its confirming runs, or None while none has succeeded.
        importance: measured beside stated, or None where it was not asked for.
        curves: by trial, all that was logged epoch by epoch, for those trials whose own curves are drawn.
        epochs: trained in all.
        seconds: of training, in all.
        wasted_seconds: those of them in trials that came to nothing.
        reason: why it ended early or failed, in words.
        document: the study file, complete.
        facts: versions, commit and hash of the data.
        created_at: in seconds since 1970.
        diagnosis: what limits it and what to try next, or None where it was not asked for.
        diagnosed: of how many ended proposals the diagnosis is, where it is an earlier one; None for that of all.
    """

    name: str
    state: str
    objective: Objective
    space: Space
    trials: Sequence[Trial]
    chosen: Chosen | None = None
    importance: Importance | None = None
    curves: Mapping[int, Sequence[Report]] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    wasted_seconds: float = 0.0
    reason: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    diagnosis: Diagnosis | None = None
    diagnosed: int | None = None

    @property
    def proposals(self) -> list[Trial]:
        """The trials that the search proposed, without the confirming runs."""
        return [trial for trial in self.trials if trial.confirms is None]

    @property
    def ended(self) -> int:
        """How many proposals have ended."""
        return sum(trial.state.finished for trial in self.proposals)

    @property
    def ranked(self) -> list[tuple[str, Parameter]]:
        """The searched parameters in the order of their stated priorities."""
        return sorted(self.space.parameters.items(), key=lambda item: item[1].priority or 99)

    def count(self, state: TrialState) -> int:
        """How many proposals are in a state."""
        return sum(trial.state is state for trial in self.proposals)


def heading(path: str, parameter: Parameter) -> str:
    """A parameter with its stated priority, as a picture's title."""
    return without_root(path) if parameter.priority is None else f"{parameter.priority} · {without_root(path)}"
