"""MNIST, and whatever has its four files: Fashion-MNIST, KMNIST, EMNIST, from a folder of yours."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from tuner.data.division import by_class, check_shares
from tuner.data.in_memory import Splits
from tuner.data.prepared import Prepared, PreparedData
from tuner.data.reading.files import Version, find_folder
from tuner.data.reading.idx import read_idx
from tuner.errors import DataError, Problem

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Mnist(PreparedData):
    """Images in the idx format, standardised with the training split's mean and deviation over all pixels.

    The `t10k` files are the test split, which no trial sees; validation is a share of the `train` files, by class.
    Labels become 0 to C-1 in their order and keep their values as `class_names`.

    Args:
        path: a folder that holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each of them gzipped as `.gz` or not; `train-images.idx3-ubyte` will do as well.
        batch_size: samples a training batch, or `full` for batch gradient descent.
        flat: give vectors of shape (B, 784) rather than images of shape (B, 1, 28, 28).
        val_share: share of the `train` files used for validation.
        seed: fixes the split. It is the same in every trial of a study.
        order_seed: fixes the order of the training batches, which is then the same in every trial; by default each
            trial's own seed does.

    Raises:
        DataError: the folder or a file is missing; or, when the data are first used, what is wrong with a file.
        ValueError: an argument outside its range.
    """

    RAW = "pixels from 0 to 1: bytes divided by 255"

    def __init__(
        self,
        path: str,
        batch_size: int | str = 32,
        flat: bool = False,
        val_share: float = 0.1,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, order_seed)
        check_shares(val_share, 0.0)
        self.files = _find(find_folder(path))
        self.flat, self.val_share, self.seed = flat, val_share, seed

    def prepare(self) -> Prepared:
        """The images, prepared once in a process however many trials ask, until a file changes."""
        return _prepared(tuple(map(Version.of, self.files)), self.flat, self.val_share, self.seed)


def _find(folder: Path) -> list[Path]:
    """The four files, however they are spelt."""
    found = [next(filter(Path.is_file, _spellings(folder, name)), None) for name in FILES]
    missing = [name for name, path in zip(FILES, found, strict=True) if path is None]
    if missing:
        rule = "is missing, and so is the same with .gz. Put it there."
        raise DataError(str(folder), [Problem(name, rule) for name in missing])
    return [path for path in found if path is not None]


def _spellings(folder: Path, name: str) -> list[Path]:
    names = (name, name.replace("-idx", ".idx"))
    return [folder / f"{spelt}{gz}" for spelt in names for gz in ("", ".gz")]


@lru_cache(maxsize=2)
def _prepared(versions: tuple[Version, ...], flat: bool, val_share: float, seed: int) -> Prepared:
    train, test = _pair(versions[0].path, versions[1].path), _pair(versions[2].path, versions[3].path)
    folder = versions[0].path.parent
    problems = []
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = [tuple(images.shape[1:]) for images, _ in (train, test)]
        problems.append(Problem(versions[2].path.name, f"must hold images of {sizes[0]}, but holds {sizes[1]}."))
    values = train[1].unique()
    if unknown := sorted(set(test[1].tolist()) - set(values.tolist())):
        rule = f"must hold labels that {versions[1].path.name} has, but holds {unknown}, too."
        problems.append(Problem(versions[3].path.name, rule))
    if problems:
        raise DataError(str(folder), problems)
    names = tuple(str(value) for value in values.tolist())
    labels, test_labels = (torch.searchsorted(values, y) for y in (train[1], test[1]))
    fit, val = by_class(labels, names, (val_share,), seed, str(versions[1].path))
    images, height, width = train[0], *train[0].shape[1:]
    splits = Splits((images[fit], labels[fit]), (images[val], labels[val]), (test[0], test_labels))
    splits = splits.standardised(over=(0, 1, 2))
    return Prepared(splits.reshaped(height * width) if flat else splits.reshaped(1, height, width), names)


def _pair(images_at: Path, labels_at: Path) -> tuple[Tensor, Tensor]:
    """Images of shape (N, H, W) from 0 to 1, and labels of shape (N,)."""
    images, labels = read_idx(images_at, 3), read_idx(labels_at, 1)
    if len(images) != len(labels):
        rule = f"must hold a label for each image of {images_at.name}, but holds {len(labels)} for {len(images)}."
        raise DataError(str(labels_at.parent), [Problem(labels_at.name, rule)])
    if not len(images):
        raise DataError(str(images_at.parent), [Problem(images_at.name, "must hold images, but holds none.")])
    return images.float() / 255, labels.long()
