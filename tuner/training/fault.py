"""What an error may say about the worker it happened on, rather than about the trial."""

from __future__ import annotations

import errno

from tuner.trial import Fault

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_DEVICE = (
    "cuda error",
    "cuda driver",
    "cudnn_status",
    "cublas_status",
    "nccl error",
    "no cuda gpus are available",
    "hip error",
    "found no nvidia driver",
)


def fault_of(error: BaseException) -> Fault | None:
    """What may be wrong with the worker: its device, its disk, what is installed, its files; None if nothing is told.

    The error that an error was raised from counts, too. Running out of memory is the trial's own.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if (fault := _fault_of_one(cause)) is not None:
            return fault
        cause = cause.__cause__
    return None


def _fault_of_one(error: BaseException) -> Fault | None:
    if isinstance(error, ImportError):
        return Fault.IMPORT
    if isinstance(error, OSError):
        if error.errno in _DISK:
            return Fault.DISK
        return Fault.FILES if isinstance(error, FileNotFoundError | PermissionError) else None
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(sign in text for sign in _DEVICE):
        return Fault.DEVICE
    return Fault.DISK if isinstance(error, RuntimeError) and "no space left on device" in text else None
