"""What a Python program calls: run a study, hand one to the workers of a service, load a best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import Problem, SpecError
from tuner.service.reuse import load

if TYPE_CHECKING:
    from tuner.best import Best
    from tuner.service.result import StudyResult


def run(
    study: str | Path | Mapping[str, Any] | Callable[..., Any],
    *,
    trials: int | None = None,
    time: str | float | None = None,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - named as the command's option
    workers: int = 0,
    space: str | Mapping[str, Any] | None = None,
    direction: str | None = None,
    name: str | None = None,
    epochs: int | None = None,
) -> StudyResult:
    """Create or continue a study, as `tuner run` does, and return how it stands at the end.

    Instead of a study it takes a plain function of your own, `objective(params, report)`, that returns the value to
    optimise: it is called once for each trial, with what `space` says (docs/reuse.md).

    Args:
        study: a YAML file, the name of a shipped example, the document itself, or a function.
        trials: how many configurations to try, those of earlier runs of this study counted.
        time: wall-clock limit, "10m" or seconds.
        seed: the study's seed.
        set: values that replace what the study says, by path (`{"model.init_args.norm": "layer"}`).
        workers: processes that train; 0 trains in this process, where a debugger can follow.
        space: of a function: its parameters by name, or a documented space.
        direction: of a function: `minimize` (the default) or `maximize`.
        name: of a function's study; by default the function's. The same name goes on with it.
        epochs: of a function: how often a whole call reports; pruners and a budget of epochs go by it.

    Raises:
        SpecError: the study has problems, all of them listed; nothing has run.
        StudyChanged: a study of this name is stored with other settings.
        StudyStopped: the study cannot go on.
        KeyboardInterrupt: interrupted; the state is saved, the same call goes on.
    """
    from tuner.engine import run as run_study

    overrides = _overrides(trials, time, seed, set)
    of_function = {"space": space, "direction": direction, "name": name, "epochs": epochs}
    if isinstance(study, str | Path | Mapping):
        _check_absent(of_function)
        return run_study(study, overrides=overrides, workers=workers)
    from tuner.spec.function import function_study, override, told
    from tuner.training.function import remember

    own: str = getattr(study, "__name__", "")
    called = name or own
    problems = [] if name or own.isidentifier() else [Problem("name", "is required: the function has none.")]
    problems += [Problem("space", "is required: what is to be searched, by name.")] if space is None else []
    if problems or space is None:
        raise SpecError("tuner.run", problems)
    try:
        document = function_study(remember(study), called, space, direction, epochs)
        overrides = [(override(path), value) for path, value in overrides]
        return run_study(document, overrides=overrides, workers=workers)
    except SpecError as error:
        raise told(error) from error


def submit(
    study: str | Path | Mapping[str, Any],
    *,
    trials: int | None = None,
    time: str | float | None = None,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - named as the command's option
    priority: int | None = None,
) -> StudyResult:
    """Queue a study for the workers of the service, as `tuner submit` does, and return how it stands now.

    Args:
        study: a YAML file, the name of a shipped example, or the document itself.
        trials: how many configurations to try.
        time: wall-clock limit, "10m" or seconds.
        seed: the study's seed.
        set: values that replace what the study says, by path.
        priority: the higher, the earlier it is served; None leaves it as it is, 0 at first.

    Raises:
        SpecError: the study has problems, all of them listed; nothing was queued.
        StudyChanged: a study of this name is stored with other settings.
    """
    from tuner.engine import submit as submit_study

    return submit_study(study, overrides=_overrides(trials, time, seed, set), priority=priority)


def _overrides(
    trials: int | None, time: str | float | None, seed: int | None, others: Mapping[str, Any] | None
) -> list[tuple[str, Any]]:
    """What replaces values of the study file, by path."""
    own = (("search.trials", trials), ("search.time", time), ("seed_everything", seed))
    return [*(others or {}).items(), *((path, value) for path, value in own if value is not None)]


def _check_absent(of_function: Mapping[str, Any]) -> None:
    """Check that nothing is said of a study that a study says itself.

    Raises:
        SpecError: something is.
    """
    hint = "goes with a function; a study says it itself, and set={{{!r}: …}} changes it."
    paths = {"space": "space", "direction": "objective.direction", "name": "study", "epochs": "trainer.max_epochs"}
    problems = [Problem(key, hint.format(paths[key])) for key, value in of_function.items() if value is not None]
    if problems:
        raise SpecError("tuner.run", problems)


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
