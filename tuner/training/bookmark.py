"""A running trial's snapshot on disk: whole or not there, of one owner, read by the next one.

The name says whose it is: `trial-0007.3.resume.pt` was written by the owner with token 3 of trial 7. A worker that has
lost its lease writes under its own, older token, so it never replaces what the new owner wrote; and what it wrote is
believed only where the storage has its last report.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from tuner.training.snapshot import Snapshot

log = logging.getLogger("tuner")

_SUFFIX, _UNFINISHED = ".resume.pt", ".resume.part"
_DIGEST = 16
"""Bytes of the checksum at a file's end: torch reads a zip archive without looking at its own."""


class Bookmark:
    """Where the owner of a trial writes its snapshots, and finds those of earlier owners.

    Args:
        folder: of the study's checkpoints.
        number: the trial's.
        token: its owner's.
        config: the trial's; a snapshot of another configuration is left alone.
    """

    def __init__(self, folder: Path, number: int, token: int, config: Mapping[str, Any]) -> None:
        self.number, self.token = number, token
        self._folder, self._config = folder, config
        self._path = folder / f"trial-{number:04d}.{token}{_SUFFIX}"
        self._readable, self._is_tried = True, False
        self._may_exist = token > 1

    def write(self, snapshot: Snapshot) -> None:
        """Put a snapshot in the place of the one before; a disk that does not take it ends no training."""
        if not self._readable:
            return
        unfinished = self._path.with_suffix("").with_suffix(_UNFINISHED)
        self._may_exist = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(snapshot, unfinished)
        except OSError as error:
            log.warning("trial %d could not be written down at %s: %s", self.number, self._path, error)
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _write(self, snapshot: Snapshot, unfinished: Path) -> None:
        try:
            with unfinished.open("wb") as file:
                _save({"trial": self._identity(), **snapshot}, file)
            if not self._is_tried:
                _load(unfinished)
                self._is_tried = True
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a user's module and callbacks have put into it
            self._readable = False
            told = "if its worker is lost, it begins anew, since its state is more than tensors and plain values"
            log.warning("trial %d: %s (%s)", self.number, told, str(error).strip().partition("\n")[0])
            unfinished.unlink(missing_ok=True)
            return
        unfinished.replace(self._path)
        _flush(self._folder)
        for older in self._files():
            if _token(older) < self.token:
                older.unlink(missing_ok=True)

    def find(self, reported: Mapping[int, float]) -> Snapshot | None:
        """The latest snapshot of an earlier owner, or None.

        Args:
            reported: the trial's objective by epoch, as the storage has it.
        """
        files = sorted((path for path in self._files() if _token(path) < self.token), key=_token, reverse=True)
        for path in files:
            try:
                snapshot = _load(path)
                if snapshot["trial"] != self._identity():
                    raise ValueError("it is of another configuration")
                last = snapshot["observer"]["last"]
                if last is not None and reported.get(last["epoch"]) != last["value"]:
                    raise ValueError(f"what it reported after epoch {last['epoch']} is not what the storage has")
            except _UNUSABLE as error:
                log.warning("trial %d does not go on from %s: %s", self.number, path, error)
            else:
                return snapshot
        return None

    def discard(self) -> None:
        """Delete what this trial's owners have written, this one's and earlier ones'."""
        if self._may_exist:
            for path in self._files():
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self._folder.glob(f"trial-{self.number:04d}.*{_SUFFIX}"))

    def _identity(self) -> dict[str, Any]:
        config = json.dumps(self._config, sort_keys=True, default=repr)
        return {"number": self.number, "config": hashlib.sha256(config.encode()).hexdigest()}


def sweep(folder: Path, finished: Collection[int]) -> None:
    """Delete what is left of finished trials, by their numbers: a late write of a worker that was thought dead."""
    for path in left(folder):
        if _number(path) in finished:
            path.unlink(missing_ok=True)


def left(folder: Path) -> list[Path]:
    """Every snapshot in a folder, the unfinished ones as well."""
    return [*folder.glob(f"trial-*{_SUFFIX}"), *folder.glob(f"trial-*{_UNFINISHED}")]


_UNUSABLE = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError, pickle.UnpicklingError)
"""What reading a file may raise that is cut off, changed, of another version, or no snapshot at all."""


class _Summing(io.RawIOBase):
    """Writes to a file, and adds up a checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = hashlib.blake2b(digest_size=_DIGEST)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sum.update(data)
        return self._file.write(data)


def _save(snapshot: Snapshot, file: BinaryIO) -> None:
    summing = _Summing(file)
    torch.save(snapshot, cast(BinaryIO, summing))
    file.write(summing.sum.digest())
    file.flush()
    os.fsync(file.fileno())


def _load(path: Path) -> dict[str, Any]:
    data = memoryview(path.read_bytes())
    if hashlib.blake2b(data[:-_DIGEST], digest_size=_DIGEST).digest() != data[-_DIGEST:]:
        raise ValueError("it is cut off or changed")
    read: dict[str, Any] = torch.load(io.BytesIO(data[:-_DIGEST]), map_location="cpu", weights_only=True)
    return read


def _flush(folder: Path) -> None:
    """Make a rename last through a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("trial-").partition(".")[0])


def _token(path: Path) -> int:
    return int(path.name.split(".")[1])
