"""Who a worker is, and whether it is still alive, as far as this machine can tell."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def identity() -> str:
    """This process: machine, process number and when it started, so that a reused number is not taken for it."""
    pid = os.getpid()
    return f"{_machine()}|{pid}|{_started(pid)}"


def machine() -> str:
    """This machine's name, for people."""
    return socket.gethostname()


def gone(owner: str) -> bool:
    """Whether the owner is a process of this machine that no longer exists; False for what cannot be known."""
    machine, _, rest = owner.rpartition("|")
    machine, _, pid = machine.rpartition("|")
    if machine != _machine() or not pid.isdecimal():
        return False
    return _started(int(pid)) != rest


def _machine() -> str:
    """Host, boot and process namespace: only within these do process numbers mean the same."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    if boot.exists() and namespace.exists():
        parts += [boot.read_text().strip()[:8], str(namespace.stat().st_ino)]
    return "/".join(parts)


def _started(pid: int) -> str:
    """When the process started, in the kernel's ticks; "alive" where that is not told; "" when there is none."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return ""
        return "alive" if _exists(pid) else ""
    return "" if fields[0] == "Z" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
