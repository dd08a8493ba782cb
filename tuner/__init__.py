"""Hyperparameter tuning for PyTorch Lightning, in the order of stated priorities.

import tuner

result = tuner.run("digits-mlp")                 # a study file, a shipped example, or a mapping
best = tuner.load_best("digits-mlp")             # from the storage, in any later program
module = best.trained_module()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api import load_best, run, submit
    from tuner.best import Best
    from tuner.errors import SpecError, TunerError
    from tuner.search import PrioritySampler, SearchSpace, search_space
    from tuner.service.result import StudyResult

__version__ = "0.1.0"

# Public names load on first use, so that `import tuner` and `tuner --help` stay light.
_HOMES = {
    "Best": "tuner.best",
    "PrioritySampler": "tuner.search",
    "SearchSpace": "tuner.search",
    "SpecError": "tuner.errors",
    "StudyResult": "tuner.service.result",
    "TunerError": "tuner.errors",
    "load_best": "tuner.api",
    "run": "tuner.api",
    "search_space": "tuner.search",
    "submit": "tuner.api",
}

__all__ = [
    "Best",
    "PrioritySampler",
    "SearchSpace",
    "SpecError",
    "StudyResult",
    "TunerError",
    "__version__",
    "load_best",
    "run",
    "search_space",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
