"""Training one trial: built the way LightningCLI builds, run by Lightning's Trainer, reported every epoch."""

from tuner.training.blueprint import Blueprint
from tuner.training.check import inspect
from tuner.training.single import LightningTraining

__all__ = ["Blueprint", "LightningTraining", "inspect"]
