"""Decoding one picture file into bytes of a fixed size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tuner.errors import Problem

CHANNELS = {"L": 1, "RGB": 3}
"""The modes a picture can be decoded to, grey and colour, with their number of channels."""


class BrokenPicture(Exception):
    """A picture cannot be decoded; tells which, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def decode(path: Path, size: tuple[int, int], mode: str) -> Tensor:
    """Decode a picture, turned as its camera says, and scale it bilinearly; transparency is dropped.

    Args:
        path: the file.
        size: height and width.
        mode: `L` or `RGB`.

    Returns:
        A uint8 tensor of shape (C, H, W).

    Raises:
        BrokenPicture: the file is no picture, is cut off, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps  # paid by those who use it

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise BrokenPicture(Problem(str(path), "must have 8 bits a channel, but has more. Convert it."))
            if "transparency" in image.info:
                image = image.convert("RGBA")
            scaled = image.convert(mode).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenPicture(Problem(str(path), f"cannot be decoded: {error}. Replace it.")) from None
    return torch.from_numpy(np.array(scaled)).reshape(*size, CHANNELS[mode]).permute(2, 0, 1)
