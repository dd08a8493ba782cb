"""One trial to be trained, as whoever asks for it and whoever trains it know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.training import Bookmark, KeepWeights, Snapshot
from tuner.trial import Report, Verdict


@dataclass(frozen=True, eq=False)
class Job:
    """A trial to be trained.

    Attributes:
        number: the trial's.
        config: `seed_everything`, `model`, `data` and `trainer`, as LightningCLI reads them.
        keep_weights: asked when the trial is complete, where its weights are to be saved.
        bookmark: where its snapshots are written, or None for nowhere.
        snapshot: where it goes on from.
    """

    number: int
    config: Mapping[str, Any]
    keep_weights: KeepWeights = lambda _: None
    bookmark: Bookmark | None = None
    snapshot: Snapshot | None = None

    def write(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write down where it is."""
        if self.bookmark is not None:
            self.bookmark.write(snapshot())

    def forget(self) -> None:
        """Delete what was written: it is over, or will begin anew."""
        if self.bookmark is not None:
            self.bookmark.discard()


Judge = Callable[[Sequence[tuple[Job, Report]]], Sequence[Verdict]]
"""Told what trials say after an epoch; answers each whether to go on."""

More = Callable[[Job, int], Sequence[Job]]
"""Asked for so many new trials of the shape of one; gives as many as there are."""
