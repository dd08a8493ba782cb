"""The diagnosis on studies whose ailment is known, as benchmarks/diagnosis.py trained and recorded them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "diagnosis.py"
VERDICTS = {"underfitting", "overfitting", "diverging", "vanishing", "learned_nothing", "fine"}


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The benchmark, as a module."""
    found = importlib.util.spec_from_file_location("diagnosis", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["diagnosis"] = module
    found.loader.exec_module(module)
    yield module
    del sys.modules["diagnosis"]


@pytest.fixture(scope="module")
def records(benchmark: ModuleType) -> dict[str, Any]:
    """What was recorded of each study."""
    return dict(json.loads(gzip.decompress(benchmark.RECORD.read_bytes())))


@pytest.mark.parametrize("held_out", [False, True], ids=["seen", "held out"])
def test_the_diagnosis_is_right_on_nine_of_ten(benchmark: ModuleType, records: dict[str, Any], held_out: bool) -> None:
    studies = {name: record for name, record in records.items() if record["held_out"] is held_out}
    said = {name: benchmark.replayed(record) for name, record in studies.items()}
    wrong = {
        f"{name} is {studies[name]['verdict']}": f"{found.verdict}, confidence {found.confidence}"
        for name, found in said.items()
        if found.verdict != studies[name]["verdict"]
    }
    assert len(wrong) <= 0.1 * len(studies), wrong
    sure = [name for name in wrong if wrong[name].endswith("high")]
    assert not sure, "what is wrong must not be sure of it"


def test_there_are_enough_of_every_kind_on_several_data_sets(benchmark: ModuleType, records: dict[str, Any]) -> None:
    for held_out, least in ((False, 3), (True, 1)):
        kinds = Counter(r["verdict"] for r in records.values() if r["held_out"] is held_out)
        assert kinds.keys() == VERDICTS
        assert min(kinds.values()) >= least
    assert len({study.source for study in benchmark.STUDIES}) >= 5


def test_the_record_is_of_the_studies_as_they_stand(benchmark: ModuleType, records: dict[str, Any]) -> None:
    assert list(records) == [study.name for study in benchmark.STUDIES], "run benchmarks/diagnosis.py --record"
    for study in benchmark.STUDIES:
        recorded = records[study.name]
        assert recorded["verdict"] == study.verdict
        assert recorded["document"]["model"] == study.document["model"]
        assert recorded["document"]["data"] == study.document["data"]
        assert recorded["document"]["trainer"] == study.document["trainer"]


def test_every_ill_study_gets_advice_on_what_it_has(benchmark: ModuleType, records: dict[str, Any]) -> None:
    for name, record in records.items():
        found = benchmark.replayed(record)
        if found.verdict == "fine":
            continue
        assert found.advice, name
        arguments = record["trials"][0]["model"]["init_args"]
        for advice in found.advice:
            root, _, rest = advice.hyperparameter.partition(".")
            assert root in ("model", "data", "trainer", "search"), advice
            assert root != "model" or rest in arguments, f"{name}: {advice.hyperparameter} is no argument of the model"
