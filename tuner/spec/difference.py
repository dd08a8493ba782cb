"""What changed between two study documents, path by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.spec.study_spec import BUDGETS


def difference(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List (path, stored value, given value) for all that differs, budgets apart; a missing side is None."""
    changes: list[tuple[str, Any, Any]] = []
    _compare(_without_budgets(stored), _without_budgets(given), "", changes)
    return changes


def _without_budgets(document: Mapping[str, Any]) -> dict[str, Any]:
    search = {key: value for key, value in document["search"].items() if key not in BUDGETS}
    return {**document, "search": search}


def _compare(old: Any, new: Any, path: str, changes: list[tuple[str, Any, Any]]) -> None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            _compare(old.get(key), new.get(key), f"{path}.{key}" if path else str(key), changes)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        changes.append((path, old, new))
