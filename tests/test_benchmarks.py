"""Every benchmark runs in a minute with --quick and ends with one line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_ends_with_its_figures(script: Path) -> None:
    told = subprocess.run([sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    figures = json.loads(told.stdout.splitlines()[-1])
    told_once = [value for value in figures.values() if not isinstance(value, dict)]
    assert told_once
    assert all(value >= 0 for value in told_once), "a ratio, an accuracy, a count, a share"
    assert any(value > 0 for value in told_once)
    assert all(value >= 0 for value in figures.get("ms", {}).values()), "a phase cannot take less than no time"
