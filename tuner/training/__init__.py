"""Training one trial: built the way LightningCLI builds, trained to the Trainer's numbers, reported every epoch."""

from tuner.training.blueprint import Blueprint
from tuner.training.check import inspect
from tuner.training.single import Begun, KeepWeights, SingleTraining, exhausted
from tuner.training.stand_in import NotLean

__all__ = ["Begun", "Blueprint", "KeepWeights", "NotLean", "SingleTraining", "exhausted", "inspect"]
