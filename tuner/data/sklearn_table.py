"""Scikit-learn's bundled tables: small, well known, and on every machine without a download."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from tuner.data.choice import check_choice
from tuner.data.division import at_random, by_class, check_shares
from tuner.data.in_memory import Splits
from tuner.data.prepared import Prepared, PreparedData, regression

TABLES: Mapping[str, Mapping[str, Any]] = {
    "breast_cancer": {},
    "diabetes": {"scaled": False},  # scikit-learn's scaling looks at the test rows, too
    "iris": {},
    "wine": {},
}
"""The tables by name, with the arguments of scikit-learn's `load_<name>`."""


class SklearnTable(PreparedData):
    """A bundled table, every feature standardised with the training split's mean and deviation.

    `breast_cancer` (569 rows, 30 features, 2 classes), `iris` (150, 4, 3) and `wine` (178, 13, 3) are split by class.
    `diabetes` (442, 10) is regression: its target is a number, the progression of the disease within a year.

    Args:
        name: `breast_cancer`, `diabetes`, `iris` or `wine`.
        batch_size: samples a training batch, or `full` for batch gradient descent.
        val_share: share of the rows used for validation.
        test_share: share of the rows kept for the test, which no trial sees.
        seed: fixes the split. It is the same in every trial of a study.
        order_seed: fixes the order of the training batches, which is then the same in every trial; by default each
            trial's own seed does.
    """

    RAW = "the columns as scikit-learn gives them"

    def __init__(
        self,
        name: str,
        batch_size: int | str = 32,
        val_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, order_seed)
        check_choice("name", name, TABLES)
        check_shares(val_share, test_share)
        self.name: str = name
        self.val_share, self.test_share, self.seed = val_share, test_share, seed

    def prepare(self) -> Prepared:
        """The table, prepared once in a process however many trials ask."""
        return _table(self.name, self.val_share, self.test_share, self.seed)


@lru_cache(maxsize=8)
def _table(name: str, val_share: float, test_share: float, seed: int) -> Prepared:
    from sklearn import datasets  # a second of imports, paid by those who use it

    bunch = getattr(datasets, f"load_{name}")(**TABLES[name])
    inputs = torch.tensor(bunch.data, dtype=torch.float64)  # (N, F)
    features = tuple(map(str, bunch.feature_names))
    shares = (val_share, test_share)
    if "target_names" not in bunch:
        target = torch.tensor(bunch.target, dtype=torch.float64)  # (N,)
        parts = at_random(len(target), shares, seed, name)
        return regression(Splits.of(inputs, target, parts).standardised(), name, features)
    labels = torch.tensor(bunch.target, dtype=torch.int64)  # (N,)
    names = tuple(map(str, bunch.target_names))
    parts = by_class(labels, names, shares, seed, name)
    return Prepared(Splits.of(inputs, labels, parts).standardised(), names, features)
