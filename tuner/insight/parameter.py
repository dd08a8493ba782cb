"""What was stated and what was measured of one hyperparameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

PED_ANOVA, FANOVA = "PED-ANOVA", "fANOVA"


@dataclass(frozen=True)
class ParameterImportance:
    """One hyperparameter: what was stated and what was measured.

    Attributes:
        path: the parameter.
        priority: as stated; 1 is searched first; None comes last.
        ped_anova: its share, a fraction of 1, in what sets the best trials apart, by PED-ANOVA; None if not measured.
        fanova: its share, a fraction of 1, in what moves the rank of a trial, by fANOVA; None if not measured.
        beyond_chance: whether its PED-ANOVA share is more than shuffled results give.
        reason: why a share is None, in words.
    """

    path: str
    priority: int | None
    ped_anova: float | None = None
    fanova: float | None = None
    beyond_chance: bool = False
    reason: str | None = None

    @property
    def name(self) -> str:
        """The path without its root (`learning_rate`)."""
        return self.path.partition(".")[2] or self.path

    @property
    def rank(self) -> float:
        """Where it is stated: its priority, or infinity."""
        return math.inf if self.priority is None else self.priority

    @property
    def shares(self) -> dict[str, float]:
        """The shares that were measured, by method."""
        shares = {PED_ANOVA: self.ped_anova, FANOVA: self.fanova}
        return {method: share for method, share in shares.items() if share is not None}
