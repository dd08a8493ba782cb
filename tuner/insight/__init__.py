"""What a study taught: which hyperparameters mattered, beside the order in which they were stated."""

from tuner.insight.importance import Importance, importance
from tuner.insight.parameter import ParameterImportance

__all__ = ["Importance", "ParameterImportance", "importance"]
