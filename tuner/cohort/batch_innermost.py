"""Convolution and pooling of small images with the batch innermost in memory.

torch makes the convolutions of K slices one of K groups, which is slow where a group has few channels. With the batch
innermost the patches of an image are copied in long runs, and the convolution is one product of matrices for each
slice. The layers in between keep that order: normalisation and activations go over memory as it lies.
"""

# Shapes: B = batch, I = channels in, O = channels out, H, W = height and width, k = side of the kernel.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MOST = 2**15
"""How many numbers the patches of a slice's batch may be; beyond that torch's own kernels are faster."""

MOST_UNALIGNED = 2**19
"""The same where the channels that come in are no multiple of four, by which torch's kernels go over them."""


def takes_convolution(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> bool:
    """Whether `convolution` does what `F.conv2d` would with these arguments, and faster."""
    if not _is_plain(x, 4) or not _is_plain(weight, 4) or not (bias is None or _is_plain(bias, 1)):
        return False
    sides = tuple(weight.shape[2:])
    pads = _pair(padding)
    if (_pair(stride), _pair(dilation), groups) != ((1, 1), (1, 1), 1) or x.dtype != weight.dtype:
        return False
    if x.shape[1] != weight.shape[1] or any(pad not in range(side) for pad, side in zip(pads, sides, strict=True)):
        return False
    places = [size + 2 * pad - side + 1 for size, pad, side in zip(x.shape[2:], pads, sides, strict=True)]
    numbers: int = x.shape[0] * weight[0].numel() * places[0] * places[1]
    return min(places) > 0 and 0 < numbers <= (MOST_UNALIGNED if x.shape[1] % 4 else MOST)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, _stride: Any = 1, padding: Any = 0) -> Tensor:
    """`F.conv2d` with a stride of 1, without dilation or groups.

    Args:
        x: shape (B, I, H, W).
        weight: shape (O, I, k, k).
        bias: shape (O,).
        padding: zeros on every side, fewer than k.
    """
    y: Tensor = _Convolution.apply(x, weight, *_pair(padding))[0]  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias.view(-1, 1, 1)


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, tall: int, wide: int) -> tuple[Tensor, Tensor]:
        return _convolved(x, weight, tall, wide)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, weight, ctx.tall, ctx.wide = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(weight, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        weight, patches = ctx.saved_tensors
        of_x, of_weight = _Backward.apply(gradient, weight, patches, ctx.tall, ctx.wide)  # type: ignore[no-untyped-call]
        return of_x, of_weight, None, None


class _Backward(torch.autograd.Function):
    """The gradients of x and the weight; it has none of its own, so a step that asks for second derivatives raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, weight: Tensor, patches: Tensor, tall: int, wide: int) -> tuple[Tensor, Tensor]:
        outside = weight.shape[2] - 1 - tall, weight.shape[3] - 1 - wide
        of_x, _ = _convolved(gradient, weight.flip(2, 3).transpose(0, 1), *outside)
        innermost = gradient.permute(1, 2, 3, 0).flatten(1)  # (O, H·W·B)
        return of_x, (innermost @ patches.T).view(weight.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        pass


def _convolved(x: Tensor, weight: Tensor, tall: int, wide: int) -> tuple[Tensor, Tensor]:
    """The convolution, and the patches of x, of shape (I·k·k, H·W·B)."""
    padded = F.pad(x.permute(1, 2, 3, 0), (0, 0, wide, wide, tall, tall))  # (I, H, W, B)
    patches = padded.unfold(1, weight.shape[2], 1).unfold(2, weight.shape[3], 1)  # (I, H, W, B, k, k)
    _, height, width, batch, _, _ = patches.shape
    columns = patches.permute(0, 4, 5, 1, 2, 3).reshape(-1, height * width * batch)
    y = weight.flatten(1) @ columns
    return y.view(-1, height, width, batch).permute(3, 0, 1, 2), columns


def takes_pooling(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: Any = False,
    count_include_pad: Any = True,  # noqa: ARG001 - as torch calls it
    divisor_override: Any = None,
) -> bool:
    """Whether `pooling` does what `F.avg_pool2d` would with these arguments, on images with the batch innermost."""
    return (
        _is_plain(x, 4)
        and x.stride(0) == 1 < x.shape[0]
        and _pair(kernel_size) == (2, 2) == _pair(stride or kernel_size)
        and _pair(padding) == (0, 0)
        and not ceil_mode
        and divisor_override is None
        and x.shape[2] % 2 == x.shape[3] % 2 == 0
    )


def pooling(x: Tensor, *_: Any) -> Tensor:
    """The mean of every 2×2 values, from shape (B, C, H, W) to (B, C, H/2, W/2)."""
    y: Tensor = _Pooling.apply(x)  # type: ignore[no-untyped-call]
    return y


class _Pooling(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        upper, lower = x[:, :, ::2], x[:, :, 1::2]
        rows = upper + lower
        return (rows[..., ::2] + rows[..., 1::2]) * 0.25

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - torch's names
        b, c, h, w = gradient.shape
        share = (gradient * 0.25).permute(1, 2, 3, 0).view(c, h, 1, w, 1, b)
        return share.expand(c, h, 2, w, 2, b).reshape(c, 2 * h, 2 * w, b).permute(3, 0, 1, 2)


def _is_plain(value: Any, dims: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dim() == dims
        and value.device.type == "cpu"
        and value.dtype in (torch.float32, torch.float64)
    )


def _pair(value: Any) -> Any:
    """Of one number for both directions, two."""
    return (value, value) if isinstance(value, int) else tuple(value)
