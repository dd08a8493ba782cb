"""The tables, all prefixed `tuner_` so that Optuna's may stand beside them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own convention
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
    }


class StudyTable(Base):
    """A study: its document, where it stands, what it cost, and where MLflow keeps it."""

    __tablename__ = "tuner_study"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    document: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Float)
    active_seconds: Mapped[float] = mapped_column(Float, default=0.0)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    tracked: Mapped[dict[str, Any]] = mapped_column(default=dict)
    courier: Mapped[str | None] = mapped_column(String(200))
    courier_until: Mapped[float] = mapped_column(Float, default=0.0)

    priority: Mapped[int] = mapped_column(Integer, default=0)
    submitted_at: Mapped[float | None] = mapped_column(Float)
    served_at: Mapped[float] = mapped_column(Float, default=0.0)
    active_at: Mapped[float] = mapped_column(Float, default=0.0)


class TrialTable(Base):
    """A trial: its values, who owns it, and how it ended. `setbacks`: by place, why it failed there and went back."""

    __tablename__ = "tuner_trial"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index("ix_tuner_trial_state", "study_id", "state"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("tuner_study.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(Integer)
    seed: Mapped[int] = mapped_column(BigInteger)
    confirms: Mapped[int | None] = mapped_column(Integer)
    params: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int] = mapped_column(Integer, default=0)

    owner: Mapped[str | None] = mapped_column(String(200))
    token: Mapped[int] = mapped_column(Integer, default=0)
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    began_after: Mapped[int | None] = mapped_column(Integer, default=0)
    lost: Mapped[list[str] | None]
    setbacks: Mapped[dict[str, Any] | None]

    value: Mapped[float | None] = mapped_column(Float)
    metrics: Mapped[dict[str, Any] | None]
    best_epoch: Mapped[int | None] = mapped_column(Integer)
    epochs: Mapped[int] = mapped_column(Integer, default=0)
    reason: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[str | None] = mapped_column(Text)
    infeasible: Mapped[bool] = mapped_column(Boolean, default=False)
    config: Mapped[dict[str, Any] | None]
    seconds: Mapped[dict[str, Any] | None]
    trained: Mapped[str | None] = mapped_column(Text)
    spent_seconds: Mapped[float | None] = mapped_column(Float)
    kept_seconds: Mapped[float] = mapped_column(Float, default=0.0)
    wasted_seconds: Mapped[float] = mapped_column(Float, default=0.0)
    wasted_epochs: Mapped[int] = mapped_column(Integer, default=0)
    started_at: Mapped[float | None] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)

    run_id: Mapped[str | None] = mapped_column(String(64))
    tracked_revision: Mapped[int] = mapped_column(Integer, default=-1)


class ReportTable(Base):
    """What a trial said after an epoch."""

    __tablename__ = "tuner_report"

    trial_id: Mapped[int] = mapped_column(ForeignKey("tuner_trial.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    metrics: Mapped[dict[str, Any]]
    at: Mapped[float] = mapped_column(Float)


class WorkerTable(Base):
    """A worker of the service: where it works, since when, on which study, and what keeps it from working."""

    __tablename__ = "tuner_worker"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    owner: Mapped[str] = mapped_column(String(200), unique=True)
    machine: Mapped[str] = mapped_column(String(200))
    device: Mapped[str] = mapped_column(String(100))
    threads: Mapped[int] = mapped_column(Integer)
    folder: Mapped[str] = mapped_column(Text)
    since: Mapped[float] = mapped_column(Float)
    last_seen: Mapped[float] = mapped_column(Float)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("tuner_study.id", ondelete="SET NULL"))
    trouble: Mapped[str | None] = mapped_column(Text)
    refused: Mapped[dict[str, Any]] = mapped_column(default=dict)
    left_at: Mapped[float | None] = mapped_column(Float)
