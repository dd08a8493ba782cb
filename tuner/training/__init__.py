"""Training one trial: built the way LightningCLI builds, trained to the Trainer's numbers, reported every epoch."""

from tuner.training.blueprint import Blueprint
from tuner.training.bookmark import Bookmark, left, sweep
from tuner.training.check import import_class, inspect
from tuner.training.fault import fault_of
from tuner.training.pace import Pace
from tuner.training.single import Begun, KeepWeights, SingleTraining, exhausted
from tuner.training.snapshot import Snapshot, SnapshotUnusable, known_epochs, seconds_of, trained_by
from tuner.training.stand_in import NotLean

__all__ = [
    "Begun",
    "Blueprint",
    "Bookmark",
    "KeepWeights",
    "NotLean",
    "Pace",
    "SingleTraining",
    "Snapshot",
    "SnapshotUnusable",
    "exhausted",
    "fault_of",
    "import_class",
    "inspect",
    "known_epochs",
    "left",
    "seconds_of",
    "sweep",
    "trained_by",
]
