"""A trained module as a `torch.export` program: its computation and its weights, which torch alone runs."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tuner.errors import BestUnusable

ROWS = 4
"""Rows of the example that a program is traced with."""


class Forward(nn.Module):
    """A module's `forward` and nothing else: a LightningModule has much about it that is no computation."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval()

    def forward(self, x: Tensor) -> Any:
        """What the module returns for a batch."""
        return self.module(x)


@dataclass(frozen=True)
class Program:
    """An exported program.

    Attributes:
        exported: what `torch.export.save` writes.
        example: inputs it was traced with, shape (B, …).
        any_batch: whether it takes batches of any size; else of the example's only.
    """

    exported: ExportedProgram
    example: Tensor
    any_batch: bool

    def save(self, path: Path) -> None:
        """Write it, for `torch.export.load`."""
        torch.export.save(self.exported, path)


def example_of(module: L.LightningModule, datamodule: L.LightningDataModule | None) -> Tensor:
    """A few inputs: the module's `example_input_array`, else the first of the first validation batch.

    Raises:
        BestUnusable: there are none, or they are not one tensor.
    """
    found: Any = module.example_input_array
    if found is None:
        batch = _first_batch(datamodule if datamodule is not None else module)
        found = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if isinstance(found, Mapping) or not isinstance(found, Tensor) or not found.dim() or not len(found):
        raise BestUnusable(
            f"forward must take one tensor of shape (B, …), but a batch's input is a {type(found).__name__}. "
            f"Set example_input_array in {type(module).__name__}."
        )
    rows = found.detach().cpu()[:ROWS]
    return rows if len(rows) > 1 else torch.cat([rows, rows])  # a batch of one would be taken for a constant


def program_of(module: L.LightningModule, example: Tensor) -> Program:
    """Export a module's `forward`, and check that the program computes what the module does.

    Args:
        module: trained.
        example: inputs of shape (B, …), B at least 2.

    Raises:
        BestUnusable: it cannot be exported, or the program computes something else.
    """
    forward = Forward(module)
    traced = torch.zeros_like(example)  # a program keeps what it was traced with, and data are nobody's business there
    any_batch = True
    try:
        exported = torch.export.export(forward, (traced,), dynamic_shapes=({0: Dim.DYNAMIC},))
    except Exception as first:  # noqa: BLE001 - the user's forward is traced, and may raise anything
        any_batch = False
        try:
            exported = torch.export.export(forward, (traced,))
        except Exception:  # noqa: BLE001 - as above; the first error is the one to tell
            told = (str(first).strip().splitlines() or [""])[0]
            raise BestUnusable(f"torch.export cannot export it: {type(first).__name__}: {told}") from first
    program = exported.module()
    with torch.no_grad():
        for rows in (example, torch.cat([example, example])) if any_batch else (example,):
            try:
                torch.testing.assert_close(program(rows), forward(rows), rtol=1e-4, atol=1e-5, equal_nan=True)
            except AssertionError as error:
                raise BestUnusable(f"the program of torch.export computes other numbers: {error}") from error
    return Program(exported, example, any_batch)


def save_onnx(program: Program, path: Path) -> str | None:
    """Write a program as ONNX, where the extra `onnx` is installed; return why not where that was tried in vain."""
    if importlib.util.find_spec("onnxscript") is None:
        return None
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision, which nobody asked for, is not there
    try:
        torch.onnx.export(program.exported, dynamo=True, verbose=False).save(path)  # type: ignore[union-attr]
    except Exception as error:  # noqa: BLE001 - many of torch's operations have no counterpart there
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    finally:
        logger.setLevel(level)
    return None


def _first_batch(owner: Any) -> Any:
    """The first validation batch of a data module, or of a module with its own data."""
    for prepare, arguments in (("prepare_data", ()), ("setup", ("validate",))):
        getattr(owner, prepare)(*arguments)
    loaders = owner.val_dataloader()
    for batch in loaders[0] if isinstance(loaders, list | tuple) else loaders:
        return batch
    return None
