"""What a study taught: which hyperparameters mattered, beside the order in which they were stated; what limits it."""

from tuner.insight.diagnosis import diagnose
from tuner.insight.finding import Advice, Curves, Diagnosis, Evidence
from tuner.insight.importance import Importance, importance
from tuner.insight.parameter import ParameterImportance

__all__ = [
    "Advice",
    "Curves",
    "Diagnosis",
    "Evidence",
    "Importance",
    "ParameterImportance",
    "diagnose",
    "importance",
]
