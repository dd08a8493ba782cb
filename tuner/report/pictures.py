"""The pictures of a study, each a pure function of its record; those that would be empty are left out."""

from __future__ import annotations

from collections.abc import Callable

from tuner.report.curves import curves
from tuner.report.figure import Figure
from tuner.report.fit import fit
from tuner.report.history import history
from tuner.report.layers import layers
from tuner.report.ledger import ledger
from tuner.report.parallel import parallel
from tuner.report.record import StudyRecord
from tuner.report.shares import shares

PICTURES: tuple[Callable[[StudyRecord], Figure | None], ...] = (
    history,
    curves,
    fit,
    shares,
    ledger,
    layers,
    parallel,
)


def pictures(record: StudyRecord) -> list[Figure]:
    """All pictures of the whole study that it has data for, the most telling first."""
    return [figure for figure in (make(record) for make in PICTURES) if figure is not None]
