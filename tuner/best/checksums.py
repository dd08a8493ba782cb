"""Checksums of the files of a folder, beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tuner.errors import BestUnusable

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Write the checksums of all files of a folder, as `sha256sum -c` reads them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    lines = [f"{_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def check_sum(path: Path) -> None:
    """Check a file against the checksums beside it, if there are any.

    Raises:
        BestUnusable: it was changed since they were written.
    """
    sums = path.with_name(SUMS)
    if not sums.is_file():
        return
    if f"{_sum(path)}  {path.name}" not in sums.read_text("utf-8").splitlines():
        raise BestUnusable(f"{path} must be what {SUMS} beside it says, but it was changed. Get the folder again.")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
