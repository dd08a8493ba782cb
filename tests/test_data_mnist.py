"""MNIST's own files: the test split they name, labels of any values, and files that are damaged."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tuner.data import Mnist
from tuner.errors import DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """The format by its own description: two zeros, 8 for bytes, the dimensions, their sizes, the bytes."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


def pixels(count: int, height: int = 4, width: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width))


def folder(tmp_path: Path, train: int = 40, test: int = 9, labels: int = 4, first: int = 0) -> Path:
    for name, array in zip(
        NAMES,
        (pixels(train), np.arange(train) % labels + first, pixels(test), np.arange(test) % labels + first),
        strict=True,
    ):
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def told(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        Mnist(str(path)).splits()
    return str(caught.value)


def test_the_t10k_files_are_the_test_split_and_validation_is_a_share_of_train(tmp_path: Path) -> None:
    data = Mnist(str(folder(tmp_path)), val_share=0.2)
    splits = data.splits()
    assert [tuple(x.shape) for x, _ in (splits.train, splits.val, splits.test)] == [
        (32, 1, 4, 3),
        (8, 1, 4, 3),
        (9, 1, 4, 3),
    ]
    assert splits.test[1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert torch.bincount(splits.val[1]).tolist() == [2, 2, 2, 2]
    assert (data.input_shape, data.num_classes, data.class_names) == ((1, 4, 3), 4, ("0", "1", "2", "3"))
    assert (splits.train[0].dtype, splits.train[1].dtype) == (torch.float32, torch.int64)


def test_pixels_are_standardised_with_the_training_split_alone(tmp_path: Path) -> None:
    splits = Mnist(str(folder(tmp_path))).splits()
    train, test = splits.train[0].double(), splits.test[0].double()
    assert train.mean().item() == pytest.approx(0, abs=1e-6)
    assert train.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    # the same affine map takes the test's bytes to its inputs
    raw = torch.tensor(pixels(9)).double().flatten()
    slope = (test.max() - test.min()) / (raw.max() - raw.min())
    assert torch.allclose(test.flatten(), test.min() + slope * (raw - raw.min()), atol=1e-5)
    (tmp_path / NAMES[2]).write_bytes(idx(np.full((9, 4, 3), 255)))
    assert torch.equal(Mnist(str(tmp_path)).splits().train[0], splits.train[0])


def test_flat_gives_the_same_pixels_as_vectors(tmp_path: Path) -> None:
    path = str(folder(tmp_path))
    flat, images = Mnist(path, flat=True), Mnist(path)
    assert flat.input_shape == (12,)
    assert torch.equal(flat.splits().train[0], images.splits().train[0].flatten(1))


def test_gzipped_files_and_the_other_spelling_are_the_same(tmp_path: Path) -> None:
    expected = Mnist(str(folder(tmp_path))).fingerprint()
    for name in NAMES[:2]:
        path = tmp_path / name
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    (tmp_path / NAMES[2]).rename(tmp_path / "t10k-images.idx3-ubyte")
    data = Mnist(str(tmp_path))
    assert [path.name for path in data.files] == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images.idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ]
    assert data.fingerprint() == expected


def test_labels_of_any_values_become_classes_from_0_on(tmp_path: Path) -> None:
    data = Mnist(str(folder(tmp_path, labels=3, first=7)))
    assert data.class_names == ("7", "8", "9")
    assert data.splits().test[1].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = str(folder(tmp_path))
    first = Mnist(path).splits()
    assert Mnist(path, batch_size=8).splits() is first
    assert Mnist(path, seed=1).fingerprint() != first.fingerprint()
    (tmp_path / NAMES[3]).write_bytes(idx(np.arange(9)[::-1] % 4))
    os.utime(tmp_path / NAMES[3], ns=(1, 1))
    assert Mnist(path).splits().test[1].tolist() == [0, 3, 2, 1, 0, 3, 2, 1, 0]


def test_missing_files_are_all_told_at_birth(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in NAMES[1:3]:
        (tmp_path / name).unlink()
    with pytest.raises(DataError) as caught:
        Mnist(str(tmp_path))
    assert [problem.path for problem in caught.value.problems] == list(NAMES[1:3])
    with pytest.raises(DataError, match="must be a folder, but it is a file"):
        Mnist(str(tmp_path / NAMES[0]))


def test_a_wrong_magic_number_is_told(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(idx(np.zeros(100)))
    message = told(tmp_path)
    assert NAMES[0] in message
    assert "must begin with the magic number 2051, but begins with 2049. That is a file of labels." in message
    (tmp_path / NAMES[0]).write_bytes(b"PK\x03\x04" + bytes(100))
    assert f"2051, but begins with {int.from_bytes(b'PK' + bytes([3, 4]))}." in told(tmp_path)


def test_a_cut_file_is_told_with_its_numbers(tmp_path: Path) -> None:
    folder(tmp_path)
    whole = (tmp_path / NAMES[0]).read_bytes()
    (tmp_path / NAMES[0]).write_bytes(whole[:-5])
    assert "must hold 40 × 4 × 3 = 480 bytes after the sizes, but holds 475" in told(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(whole + b"\0")
    assert "but holds 481" in told(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(whole[:9])
    assert "must begin with 16 bytes of magic number and sizes, but has 9 bytes in all" in told(tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"no" + raw[2:], lambda raw: raw[:30] + raw[33:]])
def test_a_damaged_gzip_is_told(damage: Any, tmp_path: Path) -> None:
    folder(tmp_path)
    raw = gzip.compress((tmp_path / NAMES[0]).read_bytes())
    (tmp_path / NAMES[0]).unlink()
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(damage(raw))
    assert f"{NAMES[0]}.gz has 1 problem:\n  (the file)  cannot be unzipped" in told(tmp_path)


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(idx(np.arange(39) % 4))
    assert f"{NAMES[1]}  must hold a label for each image of {NAMES[0]}, but holds 39 for 40" in told(tmp_path)


def test_the_test_files_must_look_like_the_others(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(idx(pixels(9, 5, 3)))
    (tmp_path / NAMES[3]).write_bytes(idx(np.arange(9)))
    message = told(tmp_path)
    assert f"{NAMES[2]}  must hold images of (4, 3), but holds (5, 3)" in message
    assert f"{NAMES[3]}  must hold labels that {NAMES[1]} has, but holds [4, 5, 6, 7, 8], too" in message


def test_no_images_and_too_few_of_a_class_are_told(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(idx(np.array([9] * 2 + [1, 2] * 19)))
    (tmp_path / NAMES[3]).write_bytes(idx(np.array([1, 2, 9] * 3)))
    assert "class '9'  needs 6 samples at least" in told(tmp_path)  # a tenth of 6 rounds to 1
    folder(tmp_path, train=0)
    assert f"{NAMES[0]}  must hold images, but holds none" in told(tmp_path)
