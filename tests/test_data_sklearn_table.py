"""Scikit-learn's tables: sizes, classes, and diabetes in its own units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets

from tuner.data import SklearnTable
from tuner.data.division import at_random


@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"),
    [
        ("breast_cancer", 569, 30, 2),
        ("iris", 150, 4, 3),
        ("wine", 178, 13, 3),
    ],
)
def test_tables_of_classes(name: str, rows: int, features: int, classes: int) -> None:
    data = SklearnTable(name)
    splits = data.splits()
    parts = (splits.train, splits.val, splits.test)
    assert (data.input_shape, data.num_classes) == ((features,), classes)
    assert len(data.class_names or ()) == classes
    assert len(data.feature_names or ()) == features
    assert (data.target_mean, data.target_std) == (None, None)
    assert sum(len(y) for _, y in parts) == rows
    whole = torch.tensor(getattr(datasets, f"load_{name}")().target).bincount()
    for (_, y), share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert torch.allclose(y.bincount().double(), share * whole.double(), atol=1.01)
    assert splits.train[0].dtype == torch.float32
    assert splits.train[0].double().mean(dim=0).abs().max() < 1e-6
    assert (splits.train[0].double().std(dim=0, correction=0) - 1).abs().max() < 1e-5


def test_class_names_are_those_of_the_flowers() -> None:
    assert SklearnTable("iris").class_names == ("setosa", "versicolor", "virginica")


def test_diabetes_is_regression_in_its_own_units() -> None:
    data = SklearnTable("diabetes")
    splits = data.splits()
    bunch = datasets.load_diabetes(scaled=False)
    targets = torch.cat([y for _, y in (splits.train, splits.val, splits.test)])
    assert (data.num_classes, data.class_names, targets.dtype) == (None, None, torch.float64)
    assert sorted(targets.tolist()) == sorted(bunch.target.tolist())
    assert data.target_mean == pytest.approx(splits.train[1].mean().item())
    assert data.target_std == pytest.approx(splits.train[1].std(correction=0).item())
    rows = at_random(442, (0.2, 0.2), 0, "")
    mean, deviation = bunch.data[rows[0]].mean(axis=0), bunch.data[rows[0]].std(axis=0)
    for (x, y), part in zip((splits.train, splits.val, splits.test), rows, strict=True):
        assert y.tolist() == bunch.target[part].tolist()
        assert np.allclose(x, (bunch.data[part] - mean) / deviation, atol=1e-5)


def test_the_split_follows_from_its_seed_and_is_made_once() -> None:
    assert SklearnTable("wine").splits() is SklearnTable("wine", batch_size=5).splits()
    assert SklearnTable("wine").fingerprint() != SklearnTable("wine", seed=1).fingerprint()
    assert SklearnTable("wine").fingerprint() != SklearnTable("iris").fingerprint()


def test_another_name_is_told_with_a_suggestion() -> None:
    with pytest.raises(
        ValueError, match=r"name must be one of breast_cancer, diabetes, iris, wine, but got 'irsi'\. Did"
    ):
        SklearnTable("irsi")
