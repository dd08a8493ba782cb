"""The study file: what it may say, read whole and checked whole, and the configurations that follow from it."""

from tuner.spec.config import at_path, place, trial_config
from tuner.spec.difference import difference
from tuner.spec.reader import Inspect, example_names, parse_override, read_study
from tuner.spec.study_spec import BUDGETS, FUNCTION, ObjectiveSpec, SearchSpec, StudySpec

__all__ = [
    "BUDGETS",
    "FUNCTION",
    "Inspect",
    "ObjectiveSpec",
    "SearchSpec",
    "StudySpec",
    "at_path",
    "difference",
    "example_names",
    "parse_override",
    "place",
    "read_study",
    "trial_config",
]
