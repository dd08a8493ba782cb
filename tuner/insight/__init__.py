"""What a study taught: which hyperparameters mattered, beside the order in which they were stated; what limits it."""

from tuner.insight.ablation import Ablation, compare
from tuner.insight.diagnosis import diagnose
from tuner.insight.finding import Advice, Curves, Diagnosis, Evidence
from tuner.insight.importance import Importance, importance, prepare
from tuner.insight.parameter import ParameterImportance
from tuner.insight.picture import draw, page

__all__ = [
    "Ablation",
    "Advice",
    "Curves",
    "Diagnosis",
    "Evidence",
    "Importance",
    "ParameterImportance",
    "compare",
    "diagnose",
    "draw",
    "importance",
    "page",
    "prepare",
]
