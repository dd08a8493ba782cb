"""Images as inputs: channels, height and width."""

from __future__ import annotations

from collections.abc import Sequence


def image_shape(network: object, input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of one input.

    Raises:
        ValueError: the inputs are no images.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{type(network).__name__} takes images of shape (channels, height, width), but an input has the shape "
            f"{tuple(input_shape)}. Take an MLP, or data of images (for Digits and Mnist: flat=False)."
        )
    channels, height, width = input_shape
    return channels, height, width


def check_positions(norm: str, height: int, width: int) -> None:
    """Check that instance normalisation has more than one position to take its statistics over.

    Raises:
        ValueError: it has one, so its output would always be the same.
    """
    if norm == "instance" and height * width == 1:
        raise ValueError(
            "norm must not be 'instance' where an image is down to 1×1: it would be normalised to a constant. "
            "Take fewer stages, or norm='group'."
        )
