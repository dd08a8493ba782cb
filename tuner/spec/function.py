"""The study of a plain function: the values of its space are arguments of `model`, which names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.errors import Problem, SpecError
from tuner.space import read_space
from tuner.space.space import ROOTS
from tuner.spec.study_spec import FUNCTION
from tuner.trial import VALUE

PREFIX = "model."
EPOCHS = 10


def function_study(
    path: str, name: str, space: str | Mapping[str, Any], direction: str | None, epochs: int | None
) -> dict[str, Any]:
    """The document of a study that tunes a function.

    Args:
        path: where the function is found.
        name: of the study.
        space: parameters by the names under which the function gets them, a documented space or a file of one. Of
            those, `model.` and `data.` are left out of the names.
        direction: which way is better.
        epochs: how often a whole call reports; pruners and a budget of epochs go by it.

    Raises:
        SpecError: the space has problems.
    """
    parameters: Any = space
    if isinstance(space, str) or "use" in space:
        read, problems = read_space(space if isinstance(space, str) else dict(space))
        if read is None:
            raise SpecError(name, problems)
        parameters = {_bare(at): _renamed(parameter, _bare) for at, parameter in read.document().items()}
    if isinstance(parameters, Mapping):
        parameters = {PREFIX + str(at): _renamed(parameter, PREFIX.__add__) for at, parameter in parameters.items()}
    return {
        "study": name,
        "model": {"class_path": path},
        "trainer": {"max_epochs": EPOCHS if epochs is None else epochs},
        "objective": {"metric": VALUE, "direction": direction or "minimize"},
        "space": parameters,
        "search": {"training": FUNCTION, "confirm": 0},
    }


def override(path: str) -> str:
    """A path of such a study, as whoever has written its space names it."""
    root, _, rest = path.partition(".")
    return f"space.{PREFIX}{rest}" if root == "space" and rest else path


def told(error: SpecError) -> SpecError:
    """The same problems, by the names that the function's space has."""
    prefix = f"space.{PREFIX}"
    problems = [
        Problem(p.path.replace(prefix, "space.", 1) if p.path.startswith(prefix) else p.path, p.message)
        for p in error.problems
    ]
    return SpecError(error.source, problems)


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial by the names under which the function gets them."""
    return {path.removeprefix(PREFIX): value for path, value in params.items()}


def _bare(path: str) -> str:
    root, _, rest = path.partition(".")
    return rest if root in ROOTS and rest else path


def _renamed(parameter: Any, rename: Any) -> Any:
    """A parameter whose conditions name others by other names."""
    if not isinstance(parameter, Mapping):
        return parameter
    changed = dict(parameter)
    for key in ("when", "default_when"):
        if isinstance(conditions := parameter.get(key), Mapping):
            changed[key] = {rename(str(parent)): values for parent, values in conditions.items()}
    return changed
