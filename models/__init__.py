"""Networks that take the documented hyperparameters by the documented names; usable without the rest of tuner."""

from tuner.models.classifier import Classifier
from tuner.models.mlp import MLP

__all__ = ["MLP", "Classifier"]
