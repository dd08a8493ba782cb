"""What a Python program calls: run a study, load a best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.service.reuse import load

if TYPE_CHECKING:
    from tuner.best import Best
    from tuner.service.result import StudyResult


def run(
    study: str | Path | Mapping[str, Any],
    *,
    trials: int | None = None,
    time: str | float | None = None,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - named as the command's option
    workers: int = 0,
) -> StudyResult:
    """Create or continue a study, as `tuner run` does, and return how it stands at the end.

    Args:
        study: a YAML file, the name of a shipped example, or the document itself.
        trials: how many configurations to try.
        time: wall-clock limit, "10m" or seconds.
        seed: the study's seed.
        set: values that replace what the study says, by path (`{"model.init_args.norm": "layer"}`).
        workers: processes that train; 0 trains in this process, where a debugger can follow.

    Raises:
        SpecError: the study has problems, all of them listed; nothing has run.
        StudyChanged: a study of this name is stored with other settings.
        StudyStopped: the study cannot go on.
        KeyboardInterrupt: interrupted; the state is saved, the same call goes on.
    """
    from tuner.engine import run as run_study

    overrides = list((set or {}).items())
    for path, value in (("search.trials", trials), ("search.time", time), ("seed_everything", seed)):
        if value is not None:
            overrides.append((path, value))
    return run_study(study, overrides=overrides, workers=workers)


def load_best(source: str | Path) -> Best:
    """Load the best of a study, or what was exported of one.

    Nothing heavy is imported before a module or data are asked of it.

    Args:
        source: a study's name; a folder of `tuner export`; a YAML file with a configuration; `models:/NAME@champion` or
            `models:/NAME/VERSION`. A path needs no storage, and `models:/` needs MLflow alone.

    Raises:
        StudyNotFound: there is no such thing.
        NoBest: none of the study's trials has succeeded.
        SpecError: the file has problems.
        BestUnusable: a file was changed since it was exported.
    """
    return load(source)
