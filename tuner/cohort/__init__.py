"""Cohorts: K trials of one shape trained in one pass, on unmodified modules (docs/cohorts.md)."""

from tuner.cohort.job import Job, Judge, More
from tuner.cohort.training import CohortTraining

__all__ = ["CohortTraining", "Job", "Judge", "More"]
