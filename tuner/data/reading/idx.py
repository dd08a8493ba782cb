"""The idx format of MNIST and its relatives: a magic number, the sizes, then a byte for each pixel or label."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from tuner.errors import DataError, Problem

_BYTES = 0x08  # the format's code for unsigned bytes


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a file of unsigned bytes, gzipped if it is called `.gz`.

    Args:
        path: the file.
        dimensions: how many it must have: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        A uint8 tensor.

    Raises:
        DataError: the magic number or the length is wrong.
    """
    raw = _bytes(path)
    head = 4 + 4 * dimensions
    if len(raw) < head:
        raise _wrong(path, f"must begin with {head} bytes of magic number and sizes, but has {len(raw)} bytes in all.")
    magic, expected = int.from_bytes(raw[:4]), (_BYTES << 8) + dimensions
    if magic != expected:
        kinds = {(_BYTES << 8) + 1: " That is a file of labels.", (_BYTES << 8) + 3: " That is a file of images."}
        raise _wrong(
            path, f"must begin with the magic number {expected}, but begins with {magic}.{kinds.get(magic, '')}"
        )
    shape = [int.from_bytes(raw[at : at + 4]) for at in range(4, head, 4)]
    held = len(raw) - head
    if held != math.prod(shape):
        sizes = " × ".join(map(str, shape))
        rule = f"must hold {sizes} = {math.prod(shape)} bytes after the sizes, but holds {held}. Download it again."
        raise _wrong(path, rule)
    return (
        torch.frombuffer(bytearray(raw[head:]), dtype=torch.uint8).reshape(shape)
        if held
        else torch.empty(shape, dtype=torch.uint8)
    )


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(path, f"cannot be unzipped: {error}. Download it again.") from None


def _wrong(path: Path, message: str) -> DataError:
    return DataError(str(path), [Problem("(the file)", message)])
