"""Where a data file is, and which version of it, so that what was read is kept until the file changes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import NamedTuple

from tuner.errors import DataError, Problem, did_you_mean


class Version(NamedTuple):
    """A file as it is now; another time of writing or another size is another version."""

    path: Path
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Version:
        """The version that lies at a path."""
        stat = path.stat()
        return cls(path, stat.st_mtime_ns, stat.st_size)


def find(path: str) -> Path:
    """Find a file or folder: in the current folder, else among the files that come with tuner's examples.

    Args:
        path: absolute, or relative to the current folder; `~` is the home folder.

    Returns:
        The absolute path.

    Raises:
        DataError: there is nothing of that name; the error suggests the closest.
    """
    asked = Path(path).expanduser()
    if asked.exists():
        return asked.absolute()
    shipped = Path(str(resources.files("tuner.examples"))) / asked
    if shipped.exists():
        return shipped.absolute()
    neighbours = [p.name for p in asked.parent.iterdir()] if asked.parent.is_dir() else []
    hint = did_you_mean(asked.name, neighbours) or " Relative paths start at the folder that tuner is started from."
    raise DataError(path, [Problem("(the path)", f"there is no such file or folder in {Path.cwd()}.{hint}")])


def find_file(path: str) -> Path:
    """Find a file as `find` does.

    Raises:
        DataError: there is none, or it is a folder.
    """
    found = find(path)
    if not found.is_file():
        raise DataError(path, [Problem("(the path)", "must be a file, but it is a folder. Name a file in it.")])
    return found


def find_folder(path: str) -> Path:
    """Find a folder as `find` does.

    Raises:
        DataError: there is none, or it is a file.
    """
    found = find(path)
    if not found.is_dir():
        raise DataError(path, [Problem("(the path)", "must be a folder, but it is a file. Name the folder it is in.")])
    return found


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it is not UTF-8; the error names the first wrong byte.
    """
    raw = path.read_bytes()
    try:
        return raw.decode().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        rule = f"must be UTF-8 text, but byte {error.start} is 0x{raw[error.start]:02x}. Save the file as UTF-8."
        raise DataError(str(path), [Problem(f"line {line}", rule)]) from None
