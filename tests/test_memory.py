"""A worker's process keeps the memory that it has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource, sys, torch
from tuner.engine.memory import keep_freed_memory

ctypes.CDLL(None).mallopt(-3, 2**17)  # glibc's threshold as it begins, to stay; else it may adapt, by chance
print(keep_freed_memory() if sys.argv[1] == "kept" else None)

def steps():
    for _ in range(5):
        tensors = [torch.ones(1_500_000) for _ in range(8)]
        del tensors

steps()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

FEW = 15_000
"""A quarter of the pages of five steps. Some of the memory that is kept may be in the way of the next step."""


def faults(how: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[str, int]:
    """What it answered, and how many pages some steps of 48 MB asked the system for after the first."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    answer, pages = done.stdout.split()
    return answer, int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has this")
def test_a_step_takes_the_memory_that_the_last_one_has_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, pages = faults("kept", monkeypatch)
    assert answer == "True"
    assert pages < FEW < faults("as it is", monkeypatch)[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has this")
def test_whoever_has_set_glibc_s_variables_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, pages = faults("kept", monkeypatch, MALLOC_TRIM_THRESHOLD_="0")
    assert answer == "False"
    assert pages > FEW
