"""Which pictures a folder holds: one folder a class, perhaps below one folder a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tuner.data.division import by_class
from tuner.data.reading.files import Version
from tuner.errors import DataError, Problem

SPLITS = ("train", "val", "test")
SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the folder of a split may be called, in any case."""

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_NOT_MEANT = frozenset(("thumbs.db", "desktop.ini"))  # what file managers leave behind, besides dotfiles


@dataclass(frozen=True)
class Picture:
    """A picture file, the index of its class, and the split that its folder names."""

    file: Version
    label: int
    split: str


@dataclass(frozen=True)
class ClassFolders:
    """What a folder holds; equal for an unchanged folder.

    Attributes:
        root: the folder.
        class_names: the classes' folders, by alphabet.
        pictures: sorted by split, class and path.
    """

    root: Path
    class_names: tuple[str, ...]
    pictures: tuple[Picture, ...]

    def parts(self, val_share: float, test_share: float, seed: int) -> tuple[Tensor, list[Tensor]]:
        """The labels, shape (N,), and the indices of training, validation and test pictures.

        What has no folder of its own is drawn from the training pictures, by class.
        """
        labels = torch.tensor([picture.label for picture in self.pictures])
        splits = [picture.split for picture in self.pictures]
        found = {
            name: torch.tensor([i for i, s in enumerate(splits) if s == name], dtype=torch.int64) for name in SPLITS
        }
        shares = {"val": val_share, "test": test_share}
        drawn = {name: share for name, share in shares.items() if not len(found[name])}
        train = found["train"]
        chosen = by_class(labels[train], self.class_names, tuple(drawn.values()), seed, str(self.root))
        found |= {name: train[index] for name, index in zip(("train", *drawn), chosen, strict=True)}
        return labels, [found[name] for name in SPLITS]


def list_classes(root: Path) -> ClassFolders:
    """List the pictures below a folder.

    It holds one folder a class; or `train`, with or without `val` and `test` and nothing else, which hold those. A
    folder that is called like a split (see `SPELLINGS`) and holds folders is one. Pictures may lie deeper within their
    class. Hidden files are left out. Links to folders are not followed: a loop would give a picture to several splits.

    Raises:
        DataError: there are no classes, one is empty, a split has a class that training lacks, a folder beside the
            splits is none of them, or a file is no picture by its name or lies where only folders should.
    """
    problems: list[Problem] = []
    found: list[tuple[str, str, Path]] = []
    for name, top in _tops(root, problems):
        found += _pictures(name, top, root, problems)
    classes = tuple(sorted({label for name, label, _ in found if name == "train"}))
    unknown = sorted({f"{name}/{label}" for name, label, _ in found if label not in classes})
    problems += [Problem(folder, "must be a class that train has, too. Rename or move it.") for folder in unknown]
    if not found and not problems:
        problems.append(Problem("(the folder)", "must hold one folder a class, but holds none. Name the folder above."))
    if problems:
        raise DataError(str(root), sorted(problems))
    index = {label: i for i, label in enumerate(classes)}
    return ClassFolders(root, classes, tuple(Picture(Version.of(p), index[label], name) for name, label, p in found))


def _tops(root: Path, problems: list[Problem]) -> list[tuple[str, Path]]:
    """The folders that hold the classes' folders, each with its split; adds what is wrong to `problems`."""
    folders = [path for path in _visible(root) if path.is_dir()]
    if not any(_split(path) and any(inner.is_dir() for inner in _visible(path)) for path in folders):
        return [("train", root)]
    problems += [_misplaced(path, root) for path in _visible(root) if not path.is_dir()]
    tops: dict[str, Path] = {}
    for folder in folders:
        name = _split(folder)
        if name is None:
            rule = "is beside folders of splits, but must be one: train, val or test. Rename it, or move it away."
            problems.append(Problem(folder.name, rule))
        elif name in tops:
            problems.append(Problem(folder.name, f"must not name the same split as {tops[name].name!r}. Join them."))
        elif folder.is_symlink():
            problems.append(_linked(folder, root))
        else:
            tops[name] = folder
    if "train" not in map(_split, folders):
        rule = "must hold train beside its other splits, but does not. Add it, or rename what are classes."
        problems.append(Problem("(the folder)", rule))
    return sorted(tops.items(), key=lambda top: SPLITS.index(top[0]))


def _split(folder: Path) -> str | None:
    return SPELLINGS.get(folder.name.lower())


def _pictures(split: str, top: Path, root: Path, problems: list[Problem]) -> list[tuple[str, str, Path]]:
    """The (split, class, path) of all pictures below a folder of classes; adds what is wrong to `problems`."""
    found = []
    for folder in _visible(top):
        if not folder.is_dir():
            problems.append(_misplaced(folder, root))
            continue
        below = [folder] if folder.is_symlink() else _below(folder)
        if links := [path for path in below if path.is_dir()]:
            problems += [_linked(path, root) for path in links]
            continue
        files = [path for path in below if path.is_file()]
        pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
        problems += [
            Problem(str(path.relative_to(root)), "is no picture by its name. Move it away.")
            for path in files
            if path.suffix.lower() not in SUFFIXES
        ]
        if not pictures:
            rule = "is a class without pictures. Add some, or remove the folder."
            problems.append(Problem(str(folder.relative_to(root)), rule))
        found += [(split, folder.name, path) for path in pictures]
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _NOT_MEANT)


def _below(folder: Path) -> list[Path]:
    """All files and links within a folder, however deep, by path."""
    inner = ((path, path.is_dir() and not path.is_symlink()) for path in _visible(folder))
    return [found for path, deeper in inner for found in (_below(path) if deeper else [path])]


def _linked(path: Path, root: Path) -> Problem:
    return Problem(str(path.relative_to(root)), "is a link to a folder, which is not followed. Move the folder here.")


def _misplaced(path: Path, root: Path) -> Problem:
    return Problem(str(path.relative_to(root)), "is a file beside the classes' folders. Move it into one, or away.")
