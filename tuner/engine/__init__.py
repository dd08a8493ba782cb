"""Engines: they start workers somewhere and watch them; `local` is this machine."""

from tuner.engine.local import Watch, run

__all__ = ["Watch", "run"]
