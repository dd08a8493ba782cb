"""The Trainer's arguments that the lean loop heeds, as the Trainer understands them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tuner.training.borrowed import GradClipAlgorithmType


@dataclass(frozen=True)
class Settings:
    """How long to train, how often to validate, what part of the data to use, and how to clip.

    They are called as the Trainer's attributes are; -1 is no limit.
    """

    max_epochs: int
    min_epochs: int
    max_steps: int
    min_steps: int | None
    check_val_every_n_epoch: int
    val_check_interval: int | float
    limit_train_batches: int | float
    limit_val_batches: int | float
    gradient_clip_val: int | float | None
    gradient_clip_algorithm: GradClipAlgorithmType | None
    deterministic: Any
    benchmark: bool | None
    log_every_n_steps: int
    default_root_dir: str

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Read them from all of the Trainer's arguments, none of which is wrong."""
        given = {field.name: arguments[field.name] for field in fields(cls)}
        read: dict[str, Any] = {
            name: _share(given[name]) for name in given if name.startswith("limit_") or name.endswith("_interval")
        }
        if given["max_epochs"] is None:
            read["max_epochs"] = 1000 if given["max_steps"] == -1 else -1
        if given["min_epochs"] is None:
            read["min_epochs"] = 0 if given["min_steps"] is None else 1
        if given["gradient_clip_algorithm"] is not None:
            read["gradient_clip_algorithm"] = GradClipAlgorithmType(given["gradient_clip_algorithm"].lower())
        if given["log_every_n_steps"] is None:
            read["log_every_n_steps"] = 50
        read["default_root_dir"] = os.path.normpath(os.path.expanduser(given["default_root_dir"] or os.getcwd()))  # noqa: PTH109, PTH111
        return cls(**given | read)


def part_of(length: int, limit: int | float) -> int:
    """How many batches a limit leaves of so many: a whole number of them, or a part."""
    return min(length, limit) if isinstance(limit, int) else int(length * limit)


def _share(value: int | float | None) -> int | float:
    """A limit: by default all of it."""
    if value is None:
        return 1.0
    return int(value) if value > 1 else value
