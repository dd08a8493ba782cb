"""What `auto` stands for: a sampler and a pruner by the budget and the space, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.space import Space

MOST_PARAMETERS = 25
MOST_TRIALS = 500
"""Up to these the Gaussian process of the priority sampler has been shown to serve."""

FEWEST_EPOCHS = 5
"""Trials shorter than this leave a pruner nothing to save."""


@dataclass(frozen=True)
class Picked:
    """A name and why it was picked; no reason where the study file names it itself."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} (auto: {self.why})" if self.why else self.name


def pick_sampler(space: Space, trials: int | None) -> Picked:
    """The sampler for this many trials of this space; without a number, for as many as there are seconds or epochs."""
    parameters = len(space.parameters)
    if parameters > MOST_PARAMETERS:
        return Picked("tpe", f"{parameters} parameters, and priority models up to {MOST_PARAMETERS}")
    if trials is not None and trials > MOST_TRIALS:
        return Picked("tpe", f"{trials} trials, and priority models up to {MOST_TRIALS} well")
    return Picked("priority", f"{parameters} parameters{f', {trials} trials' if trials else ''}")


def pick_pruner(epochs: int, trials: int | None) -> Picked:
    """The pruner for trials of this many epochs."""
    if epochs < FEWEST_EPOCHS:
        return Picked("none", f"trials of {epochs} epochs are too short to prune")
    if trials is not None and trials <= FEWEST_EPOCHS:
        return Picked("none", f"{trials} trials are too few to compare")
    return Picked("median", f"{epochs} epochs a trial")
