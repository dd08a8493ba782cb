"""The circuit breaker: whether a worker is fit to work, or fails trial after trial for reasons of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tuner.errors import StudyRefused, WorkerUnfit
from tuner.trial import Fault, TrialResult

MOST_IN_A_ROW = 3
PROBE_BYTES = 1 << 20
REMEDIES = {
    Fault.DEVICE: "Look at the device (nvidia-smi), then start the worker again",
    Fault.DISK: "Make room, or mount it writable, then start the worker again",
    Fault.IMPORT: "Install what is missing on this machine, or start the worker in the folder that has it",
    Fault.FILES: "Put the file where the study says, or mount it on this machine",
}

Probe = Callable[[], None]
"""Tries whether something of the worker works; raises if it does not."""


class Health:
    """What a worker knows of its own condition.

    A failure that may be the worker's own is looked into at once: if the device does not compute or the disk takes
    nothing, the worker is unfit. If both work, the trial goes elsewhere, and the third such failure in a row says that
    it is the worker all the same.

    Args:
        machine: its name.
        device: what it trains on.
        folders: which must be writable.
        probes: by fault, what is tried; by default the device and the disk.
    """

    def __init__(
        self, machine: str, device: str, folders: Sequence[Path], probes: dict[Fault, Probe] | None = None
    ) -> None:
        self._machine, self._at_device = machine, f"{machine} {device}"
        default: dict[Fault, Probe] = {
            Fault.DEVICE: lambda: probe_device(device),
            Fault.DISK: lambda: probe_disk(folders),
        }
        self._probes = default if probes is None else probes
        self._in_a_row = 0

    @property
    def places(self) -> tuple[str, str]:
        """The names by which it is remembered that a trial failed here."""
        return self._machine, self._at_device

    def well(self) -> None:
        """A trial has got through, so the worker works."""
        self._in_a_row = 0

    def blame(self, result: TrialResult) -> str:
        """Look into a failed trial.

        Returns:
            The name of the place at which the trial has failed, if the worker seems well.

        Raises:
            WorkerUnfit: the worker can work on nothing.
            StudyRefused: it cannot work on this study.
        """
        if result.fault is None:
            raise ValueError("the result of a trial without a fault blames no worker")
        return self.suspect(result.fault, result.reason or "no reason was told")

    def suspect(self, fault: Fault, reason: str) -> str:
        """The same, of a failure that has no result."""
        try:
            if (probe := self._probes.get(fault)) is not None:
                probe()
        except (OSError, RuntimeError) as error:
            raise WorkerUnfit(f"its {fault} does not work: {error}. {REMEDIES[fault]}.") from error
        self._in_a_row += 1
        if self._in_a_row >= MOST_IN_A_ROW:
            self._in_a_row = 0
            text = f"{MOST_IN_A_ROW} trials in a row failed there, the last: {reason}. {REMEDIES[fault]}."
            raise WorkerUnfit(text) if fault.everywhere else StudyRefused(text)
        return self._at_device if fault is Fault.DEVICE else self._machine

    def check(self) -> None:
        """Try everything, before work begins.

        Raises:
            WorkerUnfit: something does not work.
        """
        for fault, probe in self._probes.items():
            try:
                probe()
            except (OSError, RuntimeError) as error:
                raise WorkerUnfit(f"its {fault} does not work: {error}. {REMEDIES[fault]}.") from error


def probe_device(device: str) -> None:
    """Compute something on the device, if it is not the CPU."""
    if device.startswith("cuda") and torch.ones(8, device="cuda").sum().item() != 8.0:
        raise RuntimeError(f"{device} computes wrong sums")


def probe_disk(folders: Sequence[Path]) -> None:
    """Write a megabyte into each folder, and take it away again."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
