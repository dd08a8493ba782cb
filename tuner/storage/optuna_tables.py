"""Rows for Optuna's tables, those of many finished trials with a handful of statements.

`study.add_trial` takes two statements for every parameter, attribute and intermediate value of every trial: 30 ms of
CPU for one of 20 epochs. The tables are a format that Optuna keeps and numbers, so they are written here directly where
their number is the known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from tuner.storage.database import share_safely

KNOWN = 12
"""The number of the tables' format that this knows (Optuna 5)."""

PARTS = ("trial_values", "trial_params", "trial_user_attributes", "trial_intermediate_values")

Row = dict[str, Any]


class OptunaTables:
    """Optuna's tables in a database.

    Args:
        engine: Optuna's own; from now on several processes can write through it.

    Attributes:
        known: whether they have the format that this can write.
    """

    def __init__(self, engine: sa.Engine) -> None:
        share_safely(engine)
        self._engine = engine
        found = sa.MetaData()
        with engine.connect() as connection:
            found.reflect(connection, only=["version_info"])
            number = connection.scalar(sa.select(found.tables["version_info"].c.schema_version))
            self.known = number == KNOWN
            if self.known:
                found.reflect(connection, only=["studies", "trials", *PARTS])
        self._tables = found.tables

    def add(self, study: str, trials: Sequence[tuple[Row, Mapping[str, Sequence[Row]]]]) -> None:
        """Add trials to a study, numbered from its next number on.

        Args:
            study: its name.
            trials: of each its row of `trials`, without study and number, and its rows of `PARTS`, without the trial.
        """
        if not trials:
            return
        studies, rows = self._tables["studies"], self._tables["trials"]
        with self._engine.begin() as connection:
            of = sa.select(studies.c.study_id).where(studies.c.study_name == study).with_for_update()
            key = connection.execute(of).scalar_one()
            first = connection.scalar(sa.select(sa.func.count()).where(rows.c.study_id == key)) or 0
            numbered = [{"study_id": key, "number": first + i, **row} for i, (row, _) in enumerate(trials)]
            connection.execute(sa.insert(rows), numbered)
            mine = sa.select(rows.c.trial_id).where(rows.c.study_id == key, rows.c.number >= first)
            ids = connection.scalars(mine.order_by(rows.c.number)).all()
            for name in PARTS:
                parts = [
                    {"trial_id": trial, **part}
                    for trial, (_, own) in zip(ids, trials, strict=True)
                    for part in own.get(name, ())
                ]
                if parts:
                    connection.execute(sa.insert(self._tables[name]), parts)
