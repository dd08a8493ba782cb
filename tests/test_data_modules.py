"""What all data modules have in common: the contract with the models, LightningCLI, and cheap imports."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from PIL import Image
from torch import Tensor

import tuner.data
from tuner.data import InMemory, SklearnTable, Tabular
from tuner.data.division import _fills, _needed, at_random, by_class
from tuner.data.in_memory import moments, standardise
from tuner.errors import DataError, Problem, SpecError, TunerError
from tuner.models import MLP
from tuner.space import read_space
from tuner.training import Blueprint
from tuner.training.check import inspect


def csv(folder: Path, target: str = "{i} % 2") -> str:
    rows = (f"{i},{'uv'[i // 2 % 2]},{eval(target.format(i=i))}" for i in range(40))  # noqa: S307
    (folder / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    return str(folder / "t.csv")


def npz(folder: Path) -> str:
    np.savez(folder / "a.npz", x=np.arange(40.0), y=np.arange(40) % 2)
    return str(folder / "a.npz")


def pictures(folder: Path) -> str:
    for i in range(12):
        path = folder / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3), (20 * i, i, 255 - i)).save(path)
    return str(folder / "pictures")


def idx(folder: Path) -> str:
    for name, dims, data in (
        ("images-idx3", [20, 2, 2], bytes(range(80))),
        ("labels-idx1", [20], bytes([0, 1] * 10)),
    ):
        head = bytes([0, 0, 8, len(dims)]) + b"".join(d.to_bytes(4) for d in dims)
        for part in ("train", "t10k"):
            (folder / f"{part}-{name}-ubyte").write_bytes(head + data)
    return str(folder)


def text(folder: Path) -> str:
    (folder / "a.txt").write_text("to be or not to be " * 300)
    return str(folder / "a.txt")


MODULES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "Digits": lambda folder: {"flat": False},
    "SklearnTable": lambda folder: {"name": "iris", "seed": 2},
    "Tabular": lambda folder: {"path": csv(folder), "target": "y", "categorical": ["b"], "ignore": None},
    "Arrays": lambda folder: {"path": npz(folder), "val_share": 0.25},
    "ImageFolder": lambda folder: {"path": pictures(folder), "image_size": [4, 4], "mode": "L"},
    "Mnist": lambda folder: {"path": idx(folder), "flat": True},
    "Text": lambda folder: {"path": text(folder), "steps": 8},
}
"""Arguments as a study file gives them, by the data module's name."""


def test_every_data_module_is_here() -> None:
    assert set(MODULES) | {"InMemory", "TensorLoader", "Streams"} == set(tuner.data.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_lightning_cli_s_parser_builds_it_from_plain_values(name: str, tmp_path: Path) -> None:
    arguments = MODULES[name](tmp_path)
    config = {
        "seed_everything": 1,
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": f"tuner.data.{name}", "init_args": {**arguments, "batch_size": 6}},
        "trainer": {"accelerator": "cpu", "max_epochs": 1},
    }
    built = Blueprint(config).build(config, callbacks=[])
    data = built.datamodule
    assert isinstance(data, InMemory)
    assert data.batch_size == 6
    given = built.config["data"]["init_args"]
    assert {key: given[key] for key in arguments} == arguments
    batch = next(iter(data.train_dataloader()))
    assert len(batch[0]) == len(batch[1]) == 6
    assert getattr(tuner.data, name)(**arguments).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("name", MODULES)
def test_batches_are_what_models_expect(name: str, tmp_path: Path) -> None:
    data = getattr(tuner.data, name)(**MODULES[name](tmp_path), batch_size=5)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        assert len(batches) == len(loader) > 0
        for x, y in batches:
            if name == "Text":
                assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
                assert x.shape == y.shape
                assert 0 <= min(x.min(), y.min()) <= max(x.max(), y.max()) < data.vocab_size
            else:
                assert (x.dtype, y.dtype, tuple(x.shape[1:])) == (torch.float32, torch.int64, data.input_shape)
                assert 0 <= y.min() <= y.max() < data.num_classes == len(data.class_names)
                assert x.isfinite().all()


def ordered(name: str, folder: Path, order_seed: int | None, epoch: int, seed: int, **arguments: Any) -> list[Tensor]:
    """The inputs of an epoch's batches, as Lightning's loop begins it, in a trial of this seed."""
    data = getattr(tuner.data, name)(**arguments, **MODULES[name](folder), batch_size=5, order_seed=order_seed)
    loader = data.train_dataloader()
    torch.manual_seed(seed)
    _set_sampler_epoch(loader, epoch)
    batches = [x for x, _ in loader]
    assert order_seed is None or torch.initial_seed() == seed
    assert order_seed is None or torch.equal(torch.rand(1), torch.manual_seed(seed) and torch.rand(1)), "nothing drawn"
    return batches


@pytest.mark.parametrize("arguments", [*({"name": name} for name in MODULES), {"name": "ImageFolder", "streamed": 0}])
def test_all_trials_see_the_same_batches_in_the_same_order_if_the_data_has_a_seed_for_it(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    name, more = arguments["name"], {"max_memory_gb": 0} if "streamed" in arguments else {}

    def epoch(order_seed: int | None, number: int, seed: int) -> list[Tensor]:
        return ordered(name, tmp_path, order_seed, number, seed, **more)

    def same(one: list[Tensor], other: list[Tensor]) -> bool:
        return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    assert same(epoch(7, 0, seed=1), epoch(7, 0, seed=2))
    assert not all(same(epoch(7, 0, seed=1), epoch(7, number, seed=1)) for number in (1, 2, 3)), (
        "a new order each epoch"
    )
    assert not all(same(epoch(7, 0, seed=1), epoch(other, 0, seed=1)) for other in (8, 9, 10))
    assert not all(same(epoch(None, 0, seed=1), epoch(None, 0, seed=seed)) for seed in (2, 3, 4)), "by default not"


def test_a_negative_seed_of_the_order_is_refused() -> None:
    with pytest.raises(ValueError, match="order_seed must be at least 0, or null"):
        tuner.data.Digits(order_seed=-1)


@pytest.mark.parametrize("name", MODULES)
def test_what_is_done_to_a_batch_stays_with_it(name: str, tmp_path: Path) -> None:
    arguments = MODULES[name](tmp_path) | ({"batch_size": 1} if name == "Text" else {})
    data = getattr(tuner.data, name)(**arguments)
    before = data.fingerprint()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for x, y in loader:
            x.clamp_(7, 7)
            y.clamp_(7, 7)
    assert data.fingerprint() == before
    assert getattr(tuner.data, name)(**arguments).fingerprint() == before


@pytest.mark.parametrize("name", [*MODULES, "streamed"])
def test_several_devices_in_one_trial_are_refused(name: str, tmp_path: Path) -> None:
    arguments = MODULES["ImageFolder" if name == "streamed" else name](tmp_path) | {"batch_size": 4}
    more = {"max_memory_gb": 0} if name == "streamed" else {}
    data = getattr(tuner.data, "ImageFolder" if name == "streamed" else name)(**arguments, **more)
    loaders = (data.train_dataloader, data.val_dataloader, data.test_dataloader)
    data.trainer = SimpleNamespace(world_size=1)
    assert all(len(loader()) > 0 for loader in loaders)
    data.trainer = SimpleNamespace(world_size=2)
    for loader in loaders:
        with pytest.raises(
            ValueError, match=r"with one device, but got 2, .* Set trainer: \{devices: 1\}: one trial a"
        ):
            loader()


@pytest.mark.parametrize(("device", "dtype"), [("mps", torch.float32), ("cpu", torch.float64), ("cuda", torch.float64)])
def test_only_gpus_without_float64_get_float32_targets(device: str, dtype: torch.dtype) -> None:
    data = SklearnTable("diabetes")
    batch = next(iter(data.val_dataloader()))
    assert data.on_before_batch_transfer(batch, 0)[1].dtype == torch.float64
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))  # type: ignore[assignment]
    x, y = data.on_before_batch_transfer(batch, 0)
    assert (x.dtype, y.dtype) == (torch.float32, dtype)
    assert torch.equal(y, batch[1].to(dtype))


@pytest.mark.parametrize("name", MODULES)
def test_preparing_draws_nothing_from_the_trial_s_generator(name: str, tmp_path: Path) -> None:
    arguments = MODULES[name](tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    getattr(tuner.data, name)(**arguments).fingerprint()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("Digits", "SklearnTable")])
def test_a_path_that_is_not_there_is_told_before_anything_runs(name: str, tmp_path: Path) -> None:
    arguments = MODULES[name](tmp_path) | {"path": str(tmp_path / "nowhere")}
    document = {
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": f"tuner.data.{name}", "init_args": arguments},
        "trainer": {"accelerator": "cpu"},
    }
    rate = {"float": {"low": 0.1, "high": 1.0, "scale": "log", "default": 0.1}, "priority": 1}
    space, wrong = read_space({"model.learning_rate": rate})
    assert wrong == []
    problems = inspect(document, space)
    assert [problem.path.split(".")[0] for problem in problems] == ["data"]
    assert "there is no such file or folder" in problems[0].message


def test_an_mlp_learns_a_table_of_one_s_own(tmp_path: Path) -> None:
    data = Tabular(csv(tmp_path), "y", batch_size=8)
    L.seed_everything(0, verbose=False)
    module = MLP(hidden_units=8, depth=1)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert trainer.callback_metrics["test_loss"].isfinite()


def test_importing_the_data_modules_reads_no_libraries_they_may_not_need() -> None:
    heavy = ("pandas", "sklearn", "pyarrow", "pydoc_data")
    code = f"import sys, tuner.data\nprint([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"


def test_pillow_is_imported_where_it_is_used() -> None:
    # Lightning's own dependencies import it already, so the modules loaded do not tell.
    for path in Path(tuner.data.__file__).parent.glob("*.py"):
        assert "\nfrom PIL" not in path.read_text(), path
        assert "\nimport PIL" not in path.read_text(), path


# ---- what they share -----------------------------------------------------------------------------------------------


def test_a_data_error_is_a_tuner_error_and_a_value_error() -> None:
    problems = [Problem(f"line {i}", "is wrong.") for i in range(12)]
    error = DataError("t.csv", problems)
    assert isinstance(error, TunerError)
    assert isinstance(error, ValueError)
    assert (error.exit_code, error.source, error.problems) == (1, "t.csv", tuple(problems))
    lines = str(error).splitlines()
    assert lines[0] == "t.csv has 12 problems:"
    assert lines[1:3] == ["  line 0  is wrong.", "  line 1  is wrong."]
    assert lines[10:] == ["  line 9  is wrong.", "  … and 2 more"]
    assert str(DataError("t.csv", problems[:1])) == "t.csv has 1 problem:\n  line 0  is wrong."
    assert len(str(SpecError("s.yaml", problems)).splitlines()) == 13


def test_a_data_error_can_be_made_of_its_text_alone_and_be_pickled() -> None:
    error = DataError("line 3 is wrong")
    assert (str(error), error.problems) == ("line 3 is wrong", (Problem("(the data)", "line 3 is wrong"),))
    full = DataError("t.csv", [Problem("line 3", "is wrong.")])
    copied = pickle.loads(pickle.dumps(full))
    assert (str(copied), copied.source, copied.problems) == (str(full), "t.csv", full.problems)


@pytest.mark.parametrize("value", [0.1, 1e-3, 12345.678, -7.7])
def test_constants_become_zero_however_their_mean_is_rounded(value: float) -> None:
    for count in range(2, 60):
        for dtype in (torch.float32, torch.float64):
            train = torch.full((count, 1), value, dtype=dtype)
            constant, other = standardise(train, torch.tensor([[value + 1]], dtype=dtype))
            assert (constant == 0).all()
            assert other.item() == 0


def test_moments_are_the_mean_and_the_deviation_of_the_whole() -> None:
    x = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    mean, deviation = moments(x, (0, 2))
    assert np.allclose(mean, x.numpy().mean(axis=(0, 2), keepdims=True))
    assert np.allclose(deviation, x.numpy().std(axis=(0, 2), keepdims=True))


@pytest.mark.parametrize("count", range(2, 30))
def test_random_parts_cover_every_row_once_or_are_refused(count: int) -> None:
    shares = (0.2, 0.1)
    sizes = [count - round(0.2 * count) - round(0.1 * count), round(0.2 * count), round(0.1 * count)]
    if min(sizes) < 1:
        with pytest.raises(DataError, match=f"there must be samples for every part, but got {count}"):
            at_random(count, shares, 0, "t")
    else:
        parts = at_random(count, shares, 0, "t")
        assert [len(part) for part in parts] == sizes
        assert sorted(torch.cat(parts).tolist()) == list(range(count))


def test_every_class_that_is_too_small_is_told_with_the_least_that_would_do() -> None:
    labels = torch.tensor([0] * 30 + [1] * 5 + [2] * 1)
    with pytest.raises(DataError) as caught:
        by_class(labels, ("a", "b", "c"), (0.2, 0.1), 0, "t")
    assert [problem.path for problem in caught.value.problems] == ["class 'b'", "class 'c'"]
    assert "needs 6 samples at least" in str(caught.value)  # a tenth of 5 is rounded to 0, of 6 to 1
    enough = torch.tensor([0] * 30 + [1] * 6)
    parts = by_class(enough, ("a", "b"), (0.2, 0.1), 0, "t")
    assert all(set(enough[part].tolist()) == {0, 1} for part in parts)
    assert [len(part) for part in by_class(enough, ("a", "b"), (0.2, 0.0), 0, "t")] == [29, 7, 0]


@pytest.mark.parametrize(
    "shares", [(0.2, 0.2), (0.2, 0.1), (0.1, 0.0), (0.5, 0.4), (0.9, 0.05), (0.01, 0.003), (0.7,), ()]
)
def test_the_least_size_of_a_class_is_the_least(shares: tuple[float, ...]) -> None:
    assert _needed(shares) == next(count for count in range(1, 1000) if _fills(count, shares))


@pytest.mark.parametrize("shares", [(0.2, 1e-6), (0.2, 1e-9), (1e-9, 0.0), (0.999998, 1e-6), (1 - 1e-9, 0.0)])
def test_extreme_shares_are_told_at_once_and_rightly(
    shares: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr("tuner.data.division._fills", lambda *given: counted.append(1) or _fills(*given))
    with pytest.raises(DataError, match=r"needs \d+ samples at least") as caught:
        by_class(torch.arange(40) % 2, ("a", "b"), shares, 0, "t")
    assert len(counted) < 1100
    told = int(str(caught.value).split("needs ")[1].split()[0])
    assert _fills(told, shares)
    assert told < 3 / min(1 - sum(shares), *(share for share in shares if share))
