"""An argument that is one of a few words; `models/` has its own `lookup` of names, since it stands alone."""

from __future__ import annotations

from collections.abc import Collection

from tuner.errors import did_you_mean


def check_choice(name: str, value: str, known: Collection[str]) -> None:
    """Check that an argument is one of the words it may be.

    Raises:
        ValueError: it is another one; the error suggests the closest.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, but got {value!r}.{did_you_mean(value, known)}")
