"""Who a worker is, and whether it is still alive, as far as this machine can tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.service.identity import gone, identity

SAY_WHO_AND_WAIT = """
import sys
from tuner.service.identity import identity
print(identity(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that says who it is and lives until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAY_WHO_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def parts(owner: str) -> tuple[str, str, str]:
    machine, pid, started = owner.split("|")
    return machine, pid, started


def say(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_this_process_is_not_gone() -> None:
    assert not gone(identity())


def test_an_identity_stays_the_same_and_names_the_process() -> None:
    assert identity() == identity()
    assert parts(identity())[1] == str(os.getpid())


def test_a_living_child_is_not_gone_and_is_somebody_else(child: subprocess.Popen[str]) -> None:
    owner = say(child)
    assert owner != identity()
    assert parts(owner)[0] == parts(identity())[0]
    assert not gone(owner)


def test_a_finished_child_is_gone(child: subprocess.Popen[str]) -> None:
    owner = say(child)
    child.communicate()
    assert child.returncode == 0
    assert gone(owner)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells a zombie from a living process")
def test_a_killed_child_is_gone_although_nobody_has_collected_it_yet(child: subprocess.Popen[str]) -> None:
    owner = say(child)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and left as a zombie
    assert gone(owner)


def test_the_owner_on_another_machine_is_not_gone_whatever_its_number() -> None:
    machine, _, started = parts(identity())
    for pid in (str(os.getpid()), "4194304999"):
        assert not gone(f"elsewhere/{machine}|{pid}|{started}")


def test_an_owner_from_before_the_last_boot_is_not_taken_for_a_process_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = Path.read_text
    before = identity()

    def another_boot(self: Path, *arguments: object, **named: object) -> str:
        text = read(self, *arguments, **named)  # type: ignore[arg-type]
        return "00000000-another-boot" if self.name == "boot_id" else text

    monkeypatch.setattr(Path, "read_text", another_boot)
    assert identity() != before
    assert not gone(before)


def test_a_process_number_that_does_not_exist_is_gone() -> None:
    machine, _, _ = parts(identity())
    assert gone(f"{machine}|4194304999|12345")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process started")
def test_a_process_number_that_was_used_again_is_gone() -> None:
    machine, pid, started = parts(identity())
    assert gone(f"{machine}|{pid}|{int(started) - 1}")
    assert gone(f"{machine}|{pid}|")


def test_a_process_that_ends_while_it_is_looked_at_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux answers "no such process" when the process ends between the opening and the reading of its file."""
    owner, read = identity(), Path.read_text

    def ended(self: Path, *arguments: object, **named: object) -> str:
        if self.name == "stat":
            raise ProcessLookupError(3, "No such process")
        return read(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", ended)
    assert gone(owner)


@pytest.mark.parametrize(
    "owner", ["", "|", "||", "|||", "worker", "worker-3", "a|b|c", "|1|2", "elsewhere|1|", "1|1|1|1", "ä|²|½", "\n"]
)
def test_who_cannot_be_read_is_not_gone(owner: str) -> None:
    assert not gone(owner)


@pytest.mark.parametrize("pid", ["", "abc", "-1", "1.5", "²", " 1"])
def test_what_is_no_process_number_of_this_machine_is_not_gone(pid: str) -> None:
    machine, _, started = parts(identity())
    assert not gone(f"{machine}|{pid}|{started}")
