"""The one error of this room."""

from __future__ import annotations

from tuner.training import exhausted


class NotFusable(BaseException):
    """These trials cannot be trained in one pass; the message goes on after "because".

    Nothing is wrong, the trials are trained one by one. It is not an `Exception`, so that no `except Exception` and no
    `hasattr` of a user's code swallows it.

    Args:
        reason: in words, without a full stop.
        attribute: the attribute or hyperparameter on which trials of a cohort would have to agree, if that would help.
    """

    def __init__(self, reason: str, attribute: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.attribute = attribute


class OutOfMemoryTogether(NotFusable):
    """So many slices do not fit into memory."""


class TooBig(NotFusable):
    """A cohort would be no faster.

    Args:
        reason: in words.
        alone_seconds: what a step takes alone.
    """

    def __init__(self, reason: str, alone_seconds: float) -> None:
        super().__init__(reason)
        self.alone_seconds = alone_seconds


def unfusable(error: Exception) -> NotFusable:
    """What an error that the steps of all slices raise together says about them."""
    told = str(error).strip().splitlines()
    if exhausted(error):
        return OutOfMemoryTogether("they do not fit into memory together")
    return NotFusable(f"{type(error).__name__} in all slices at once: {told[0] if told else ''}")


class StateMissing(NotFusable):
    """A step reads an attribute that it was not given; another call will give it."""
