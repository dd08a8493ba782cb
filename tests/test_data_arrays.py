"""Arrays from .npz files: classes and numbers, given and drawn splits, and what is said of wrong arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tuner.data import Arrays, Tabular
from tuner.errors import DataError


def saved(folder: Path, name: str = "a.npz", **arrays: Any) -> str:
    np.savez(folder / name, **arrays)
    return str(folder / name)


def vectors(count: int = 30) -> dict[str, Any]:
    return {"x": np.arange(2.0 * count).reshape(count, 2), "y": np.arange(count) % 3}


def told(path: str, **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        Arrays(path, **arguments).splits()
    return str(caught.value)


def test_vectors_are_standardised_feature_by_feature_with_the_training_split_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal([3, -5, 0], [1, 10, 0.1], (60, 3)), np.arange(60) % 2
    data = Arrays(saved(tmp_path, x=x, y=y))
    train, val, test = (part for part, _ in (data.splits().train, data.splits().val, data.splits().test))
    assert train.double().mean(dim=0).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert train.double().std(dim=0, correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    # which rows are in the test split is seen where the samples carry their numbers
    numbered = Arrays(saved(tmp_path, "n.npz", x=np.arange(60.0), y=y)).splits().test[0][:, 0]
    order = Arrays(saved(tmp_path, "n.npz", x=np.arange(60.0), y=y)).splits()
    every = torch.cat([order.train[0], order.val[0], order.test[0]])[:, 0].sort().values
    tested = torch.searchsorted(every, numbered).tolist()
    x[tested] += 1e6
    planted = Arrays(saved(tmp_path, "planted.npz", x=x, y=y)).splits()
    assert torch.equal(planted.train[0], train)
    assert torch.equal(planted.val[0], val)
    assert (planted.test[0] > test + 1e4).all()


def test_images_are_standardised_channel_by_channel(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 256, (40, 3, 4, 5)).astype(np.uint8)
    data = Arrays(saved(tmp_path, x=x, y=np.arange(40) % 2))
    train = data.splits().train[0].double()
    assert data.input_shape == (3, 4, 5)
    assert train.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert train.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1] * 3, abs=1e-5)
    assert train.mean(dim=0).abs().max() > 0.01, "pixels are not standardised alone"


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ([-3, 7, 100], ("-3", "7", "100")),
        ([True, False], ("False", "True")),
        (["b", "a", "10"], ("10", "a", "b")),
        (np.array([200, 3], np.uint8), ("3", "200")),
    ],
    ids=str,
)
def test_whole_numbers_truth_and_text_are_classes_from_0_on(
    targets: Any, names: tuple[str, ...], tmp_path: Path
) -> None:
    y = np.asarray(targets)[np.arange(60) % len(targets)]
    data = Arrays(saved(tmp_path, x=np.arange(60.0), y=y))
    assert (data.class_names, data.num_classes, data.input_shape) == (names, len(names), (1,))
    splits = data.splits()
    x = torch.cat([splits.train[0], splits.val[0], splits.test[0]])[:, 0]
    labels = torch.cat([splits.train[1], splits.val[1], splits.test[1]])
    assert labels.dtype == torch.int64
    assert [names[i] for i in labels[x.argsort()].tolist()] == [str(v) for v in y.tolist()]


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.arange(60) % 20, tuple(map(str, range(20)))),
        (np.arange(60.0) % 3 - 1, ("-1", "0", "1")),  # 1 or 1.0
        (np.arange(63) % 21, None),  # 21 values
        (np.arange(30) // 1.6 // 1, None),  # fewer than two samples a value
        (np.arange(60) % 3 / 2, None),  # not whole
        (np.arange(3000), None),
    ],
    ids=str,
)
def test_auto_takes_few_whole_numbers_for_classes_as_tables_do(y: Any, names: Any, tmp_path: Path) -> None:
    data = Arrays(saved(tmp_path, x=np.arange(len(y)), y=y))
    assert data.class_names == names
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *(f"{i},{v}" for i, v in enumerate(y.tolist()))]))
    assert Tabular(str(tmp_path / "t.csv"), "y").class_names == names


def test_the_task_can_be_said(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.arange(60), y=np.arange(60) % 3, many=np.arange(60) % 30, half=np.arange(60) % 3 / 2)
    assert Arrays(path, task="regression").splits().train[1].dtype == torch.float64
    many = Arrays(path, targets="many", task="classification", val_share=0.4, test_share=0)
    assert many.class_names == tuple(map(str, range(30)))
    assert Arrays(path, targets="half", task="classification").class_names == ("0", "0.5", "1")
    with pytest.raises(
        ValueError, match="task must be one of auto, classification, regression, but got 'clasification'"
    ):
        Arrays(path, task="clasification")
    words = saved(tmp_path, "words.npz", x=np.arange(60), y=np.array(["a", "b"])[np.arange(60) % 2])
    assert "array 'y'  must hold numbers for regression, but holds <U1. Set task: classification." in told(
        words, task="regression"
    )


def test_numbers_that_do_not_do_as_classes_may_be_quantities(tmp_path: Path) -> None:
    y = [*range(10)] * 3 + [99]
    advice = (
        "needs 3 samples at least for every part to get one, but has 1. Add samples, leave the class out, or change"
    )
    for message in (
        told(saved(tmp_path, x=np.arange(31), y=y)),
        table_told(tmp_path, [f"{i},{v}" for i, v in enumerate(y)]),
    ):
        assert advice in message
        assert message.endswith("test_share. If the target is a quantity, set task: regression.")
    words = [f"w{v}" for v in y]
    assert told(saved(tmp_path, x=np.arange(31), y=words)).endswith("or change val_share or test_share.")


def table_told(folder: Path, rows: list[str]) -> str:
    (folder / "t.csv").write_text("\n".join(["x,y", *rows]))
    with pytest.raises(DataError) as caught:
        Tabular(str(folder / "t.csv"), "y").splits()
    return str(caught.value)


@pytest.mark.parametrize("offset", [0, 10**8, 1_700_000_000])
def test_a_regression_target_s_offset_costs_it_nothing(offset: int, tmp_path: Path) -> None:
    arrays = {"x": np.arange(100), "y": offset + np.arange(100) / 8}
    data = Arrays(saved(tmp_path, **arrays))
    near = Arrays(saved(tmp_path, "near.npz", x=arrays["x"], y=arrays["y"] - offset))
    assert torch.equal(data.splits().train[1] - offset, near.splits().train[1])
    assert data.target_std == pytest.approx(near.target_std, rel=1e-6)


def test_what_is_constant_in_training_is_0_in_given_splits_too(tmp_path: Path) -> None:
    x = np.stack([np.arange(30.0), np.full(30, 7.0)], axis=1)
    given = np.array([[0.0, 1e6], [0.0, -1e6]])
    path = saved(tmp_path, x=x, y=np.arange(30) % 2, vx=given, vy=[0, 1])
    splits = Arrays(path, val_inputs="vx", val_targets="vy").splits()
    for inputs, _ in (splits.train, splits.val, splits.test):
        assert (inputs[:, 1] == 0).all()


def test_floating_point_targets_are_regression(tmp_path: Path) -> None:
    y = np.arange(50.0).reshape(50, 1) % 3 + 10.5
    data = Arrays(saved(tmp_path, x=np.arange(50.0), y=y))
    train = data.splits().train[1]
    assert (data.num_classes, data.class_names, train.dtype, train.shape[1:]) == (None, None, torch.float64, ())
    assert set(train.tolist()) == {10.5, 11.5, 12.5}
    assert data.target_mean == pytest.approx(sum(train.tolist()) / len(train))
    assert data.target_std == pytest.approx(float(np.std(train.numpy())), rel=1e-6)


def test_given_splits_are_kept_and_others_drawn(tmp_path: Path) -> None:
    arrays = vectors() | {
        "vx": np.full((5, 2), 59.0),
        "vy": [0, 1, 2, 0, 1],
        "tx": np.zeros((4, 2)),
        "ty": [2, 2, 1, 0],
    }
    path = saved(tmp_path, **arrays)
    val, test = {"val_inputs": "vx", "val_targets": "vy"}, {"test_inputs": "tx", "test_targets": "ty"}
    both = Arrays(path, **val, **test).splits()
    assert [len(y) for _, y in (both.train, both.val, both.test)] == [30, 5, 4]
    assert (both.val[1].tolist(), both.test[1].tolist()) == ([0, 1, 2, 0, 1], [2, 2, 1, 0])
    # training is 0, 1, …, 59 in two columns: means 29 and 30, deviation of 0, 2, …, 58
    deviation = float(np.std(np.arange(0, 60, 2)))
    assert both.val[0][0].tolist() == pytest.approx([30 / deviation, 29 / deviation])
    assert both.test[0][0].tolist() == pytest.approx([-29 / deviation, -30 / deviation])
    one = Arrays(path, **val, test_share=0.1).splits()
    assert [len(y) for _, y in (one.train, one.val, one.test)] == [27, 5, 3]
    other = Arrays(path, **test, val_share=0.2).splits()
    assert [len(y) for _, y in (other.train, other.val, other.test)] == [24, 6, 4]


def test_a_given_split_may_lack_classes_and_keeps_their_numbers(tmp_path: Path) -> None:
    arrays = vectors() | {"y": np.array([5, 7, 11])[np.arange(30) % 3], "vx": np.zeros((3, 2)), "vy": [11, 7, 11]}
    data = Arrays(saved(tmp_path, **arrays), val_inputs="vx", val_targets="vy")
    assert data.splits().val[1].tolist() == [2, 1, 2]


def test_split_follows_from_the_seed_and_classes_keep_their_share(tmp_path: Path) -> None:
    path = saved(tmp_path, **vectors(60))
    splits = [Arrays(path, seed=seed).splits() for seed in (0, 0, 1)]
    assert splits[0] is splits[1]
    assert splits[0].fingerprint() != splits[2].fingerprint()
    assert [torch.bincount(y).tolist() for _, y in (splits[2].train, splits[2].val, splits[2].test)] == [
        [12] * 3,
        [4] * 3,
        [4] * 3,
    ]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    first = Arrays(saved(tmp_path, **vectors())).fingerprint()
    changed = vectors()
    changed["x"][0, 0] = 1000
    path = saved(tmp_path, **changed)
    os.utime(path, ns=(1, 1))
    assert Arrays(path).fingerprint() != first


@pytest.mark.parametrize(
    ("changed", "arguments", "expected"),
    [
        ({}, {"inputs": "xx"}, "inputs  must name an array of the file, but got 'xx'."),
        ({}, {"targets": "labels"}, "targets  must name an array of the file, but got 'labels'. It holds: x, y."),
        ({"y": np.zeros(29, int)}, {}, "array 'x'  must be as long as 'y', but they have 30 and 29 samples"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, {}, "array 'x'  must have samples and values"),
        ({"x": np.array(["a"] * 30)}, {}, "array 'x'  must hold numbers, but holds <U1"),
        ({"x": np.zeros(30, complex)}, {}, "array 'x'  must hold numbers, but holds complex128"),
        ({"x": np.float64(3)}, {}, "array 'x'  must have samples, but is the single value 3.0"),
        ({"y": np.zeros((30, 2), int)}, {}, "array 'y'  must have shape (N,) or (N, 1), but has (30, 2)"),
        ({"y": np.zeros(30, complex)}, {}, "array 'y'  must hold whole numbers, text or"),
        ({"y": np.array([{}] * 30)}, {}, "array 'y'  must be an array of numbers, or of text for targets"),
        ({"y": np.zeros(30, int)}, {}, "there must be two at least, but got ['0']"),
        ({"y": np.arange(30) // 29}, {}, "class '1'  needs 3 samples at least for every part to get one, but has 1"),
        ({"y": np.full(30, 0.5)}, {}, "must vary among the training samples, but is always 0.5"),
    ],
    ids=lambda value: "",
)
def test_what_is_wrong_with_arrays_is_told(
    changed: dict[str, Any], arguments: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert expected in told(saved(tmp_path, **(vectors() | changed)), **arguments)


def test_a_name_close_to_one_in_the_file_is_suggested(tmp_path: Path) -> None:
    path = saved(tmp_path, images=np.zeros(9), labels=np.zeros(9, int))
    message = told(path, inputs="image", targets="labls")
    assert (
        "inputs   must name an array of the file, but got 'image'. Did you mean 'images'? It holds: images" in message
    )
    assert "targets  must name an array of the file, but got 'labls'. Did you mean 'labels'?" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_told_with_its_place(value: float, tmp_path: Path) -> None:
    x = np.zeros((30, 2, 3))
    x[4, 1, 2] = x[9, 0, 0] = value
    message = told(saved(tmp_path, x=x, y=np.arange(30) % 2))
    assert f"array 'x'  must be finite, but [4, 1, 2] is {value}, and so are 1 more (sample 4, from 0)" in message
    y = np.arange(30.0)
    y[3] = value
    message = told(saved(tmp_path, "y.npz", x=np.zeros(30), y=y))
    assert f"array 'y'  must be finite, but [3] is {value} (sample 3, from 0)" in message


def test_given_splits_must_look_like_training(tmp_path: Path) -> None:
    arrays = vectors() | {"vx": np.zeros((3, 4)), "vy": np.array([0.0, 1.0, 2.0])}
    message = told(saved(tmp_path, **arrays), val_inputs="vx", val_targets="vy")
    assert "val_inputs   must have samples of shape (2,) as the training inputs, but got (4,)" in message
    assert "val_targets  must be of the same kind as the training targets (int64), but got float64" in message
    arrays |= {"vx": np.zeros((3, 2)), "vy": np.array([0, 7, 9])}
    message = told(saved(tmp_path, "b.npz", **arrays), val_inputs="vx", val_targets="vy")
    assert "array 'vy'  must hold classes that 'y' has, but holds 7, 9, too" in message


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("x,y\n1,2\n")
    assert "must be an .npz archive as numpy.savez writes it, but it is something else" in told(
        str(tmp_path / "text.npz")
    )
    (tmp_path / "empty.npz").write_bytes(b"")
    assert "but it is something else" in told(str(tmp_path / "empty.npz"))
    whole = Path(saved(tmp_path, **vectors()))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:200])
    assert "but it is something else" in told(str(tmp_path / "cut.npz"))
    np.save(tmp_path / "single.npy", np.zeros(3))
    assert "but it is a single array" in told(str(tmp_path / "single.npy"))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    told(saved(tmp_path, x=np.array([Trap()] * 30), y=np.zeros(30, int)))
    assert not (tmp_path / "sprung").exists()


def test_arguments_are_checked_at_birth(tmp_path: Path) -> None:
    path = saved(tmp_path, **vectors())
    with pytest.raises(ValueError, match="val_inputs and val_targets go together, but got 'x' and None"):
        Arrays(path, val_inputs="x")
    with pytest.raises(ValueError, match="test_inputs and test_targets go together"):
        Arrays(path, test_targets="y")
    with pytest.raises(DataError, match="there is no such file"):
        Arrays(str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match="must leave training data"):
        Arrays(path, val_share=0)
