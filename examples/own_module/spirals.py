"""Points on the arms of a spiral, made here, so that the project needs no download."""

from __future__ import annotations

import math

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Spirals(L.LightningDataModule):
    """Noisy points on the arms of a spiral; the same ones for every seed of a training.

    Args:
        batch_size: points in a training batch.
        points: in each of training, validation and test.
        noise: how far they lie beside their arm.
    """

    def __init__(self, batch_size: int = 32, points: int = 600, noise: float = 0.08) -> None:
        super().__init__()
        self.batch_size, self.points, self.noise = batch_size, points, noise

    def setup(self, stage: str) -> None:
        """Draw the points."""
        generator = torch.Generator().manual_seed(0)
        arms = torch.arange(3 * self.points) % 3
        radius = torch.rand(len(arms), generator=generator)
        angle = 2 * math.pi * (radius + arms / 3)
        points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
        points = points + self.noise * torch.randn(points.shape, generator=generator)
        parts = [slice(part * self.points, (part + 1) * self.points) for part in range(3)]
        self.train, self.val, self.test = (TensorDataset(points[part], arms[part]) for part in parts)

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """All validation points at once."""
        return DataLoader(self.val, len(self.val))

    def test_dataloader(self) -> DataLoader:
        """All test points at once."""
        return DataLoader(self.test, len(self.test))
