"""What changed between two study documents, path by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.space import Parameter
from tuner.spec.study_spec import BUDGETS, SearchSpec


def difference(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List (path, stored value, given value) for all that differs, budgets apart; a missing side is None."""
    changes: list[tuple[str, Any, Any]] = []
    _compare(_comparable(stored), _comparable(given), "", changes)
    return changes


def _comparable(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with every default spelt out, without budgets and without what only people read."""
    search = SearchSpec.model_validate(document["search"]).model_dump(exclude=set(BUDGETS))
    space = {
        path: Parameter.model_validate(parameter).model_dump(by_alias=True, exclude={"what", "why"})
        for path, parameter in document["space"].items()
    }
    return {**document, "search": search, "space": space}


def _compare(old: Any, new: Any, path: str, changes: list[tuple[str, Any, Any]]) -> None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            _compare(old.get(key), new.get(key), f"{path}.{key}" if path else str(key), changes)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        changes.append((path, old, new))
