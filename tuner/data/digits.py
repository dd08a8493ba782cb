"""Handwritten digits: scikit-learn's 1,797 images of 8×8, ten classes, on every machine without a download."""

from __future__ import annotations

from functools import lru_cache

import torch

from tuner.data.division import check_shares, stratified
from tuner.data.in_memory import InMemory, Splits


class Digits(InMemory):
    """The digits, split 60 / 20 / 20 by class, standardised with the training split's mean and deviation.

    Args:
        batch_size: samples a training batch, or `full` for batch gradient descent.
        flat: give vectors of shape (B, 64) rather than images of shape (B, 1, 8, 8).
        val_share: share of the samples used for validation.
        test_share: share of the samples kept for the test, which no trial sees.
        seed: fixes the split. It is the same in every trial of a study.
        order_seed: fixes the order of the training batches, which is then the same in every trial; by default each
            trial's own seed does.
    """

    RAW = "pixels from 0 to 16"

    num_classes = 10
    class_names = tuple("0123456789")

    def __init__(
        self,
        batch_size: int | str = 32,
        flat: bool = True,
        val_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, order_seed)
        check_shares(val_share, test_share)
        self.flat, self.val_share, self.test_share, self.seed = flat, val_share, test_share, seed
        self.input_shape = (64,) if flat else (1, 8, 8)

    def splits(self) -> Splits:
        """The three splits, prepared once in a process however many trials ask."""
        return _digits(self.flat, self.val_share, self.test_share, self.seed)


@lru_cache(maxsize=8)
def _digits(flat: bool, val_share: float, test_share: float, seed: int) -> Splits:
    from sklearn.datasets import load_digits  # a second of imports, paid by those who use it

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)  # (N, 8, 8), 0 to 16
    labels = torch.tensor(bunch.target, dtype=torch.int64)  # (N,)
    parts = stratified(labels, (val_share, test_share), seed)
    prepared = Splits.of(images, labels, parts).standardised(over=(0, 1, 2))  # one channel
    return prepared.reshaped(64) if flat else prepared.reshaped(1, 8, 8)
