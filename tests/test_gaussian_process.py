"""The Gaussian process against formulas of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad

from tuner.search.gaussian_process import GaussianProcess, Prior, _loss, _Pairs, _squared

Array = NDArray[np.float64]
ORDERED = np.array([True, True, True, False])


def data(count: int, noise: float = 0.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    points = rng.random((count, 4))
    points[:, 3] = (np.floor(points[:, 3] * 3) + 0.5) / 3
    values = np.sin(6 * points[:, 0]) + 0.3 * points[:, 1] + (points[:, 3] > 0.6) + noise * rng.normal(size=count)
    return points, (values - values.mean()) / values.std()


def fitted(count: int = 60, noise: float = 0.05) -> GaussianProcess:
    points, values = data(count, noise)
    return GaussianProcess.fit(points, values, ORDERED, Prior(np.zeros(4)))


def matern(process: GaussianProcess, one: Array, other: Array) -> float:
    r2 = 0.0
    for a, b, ordered, scale in zip(one, other, ORDERED, np.exp(process.log_scales), strict=True):
        apart = (a - b) if ordered else float(abs(a - b) > 1e-9)
        r2 += (apart / scale) ** 2
    r = math.sqrt(r2)
    return math.exp(process.log_signal) * (1 + math.sqrt(5) * r + 5 / 3 * r2) * math.exp(-math.sqrt(5) * r)


def test_predictions_are_those_of_the_textbook() -> None:
    process = fitted(20)
    new = np.random.default_rng(1).random((3, 4))
    covariance = np.array([[matern(process, a, b) for b in process.points] for a in process.points])
    inverse = np.linalg.inv(covariance + (math.exp(process.log_noise) + 1e-8) * np.eye(20))
    mean, variance = process.predict(new)
    for i, point in enumerate(new):
        across = np.array([matern(process, point, known) for known in process.points])
        assert mean[i] == pytest.approx(across @ inverse @ process.values, abs=1e-6)
        assert variance[i] == pytest.approx(matern(process, point, point) - across @ inverse @ across, abs=1e-6)


def test_the_slope_of_the_loss_is_that_of_finite_differences() -> None:
    points, values = data(25, 0.1)
    prior = Prior(np.full(4, -0.5))
    pairs = _Pairs(_squared(points, points, ORDERED))
    theta = np.array([-0.3, 0.2, 0.5, -0.8, -3.0, 0.3])
    error = check_grad(lambda t: _loss(t, pairs, values, prior)[0], lambda t: _loss(t, pairs, values, prior)[1], theta)
    assert error < 1e-4


def test_what_matters_gets_a_short_length_scale_and_what_does_not_a_long_one() -> None:
    first, second, nothing, kind = np.exp(fitted(120).log_scales)
    assert first < second < nothing
    assert first < 1.0 < nothing
    assert kind < nothing


def test_the_noise_is_found() -> None:
    assert math.exp(fitted(150, 0.02).log_noise) < 0.01
    assert 0.03 < math.exp(fitted(150, 0.5).log_noise) < 0.3


def test_it_predicts_what_it_has_not_seen() -> None:
    process = fitted(150, 0.02)
    points, values = data(250, 0.02)
    known = data(150, 0.02)[1]
    mean, _ = process.predict(points[150:])
    assert np.corrcoef(mean, values[150:])[0, 1] > 0.98
    assert len(known) == 150


def test_an_imagined_observation_is_one_at_the_mean() -> None:
    process = fitted(30)
    point = np.array([0.5, 0.5, 0.5, 0.5])
    (mean,), (variance,) = process.predict(point[None])
    imagined = process.imagine(point)
    by_hand = GaussianProcess(
        np.concatenate([process.points, point[None]]),
        np.append(process.values, mean),
        ORDERED,
        process.log_scales,
        process.log_noise,
        process.log_signal,
        np.linalg.cholesky(
            np.array([[matern(process, a, b) for b in imagined.points] for a in imagined.points])
            + (math.exp(process.log_noise) + 1e-8) * np.eye(31)
        ),
    )
    new = np.random.default_rng(2).random((5, 4))
    for got, expected in zip(imagined.predict(new), by_hand.predict(new), strict=True):
        assert got == pytest.approx(expected, abs=1e-6)
    assert imagined.predict(point[None])[0][0] == pytest.approx(mean, abs=1e-6)
    assert imagined.predict(point[None])[1][0] < variance / 2


def test_a_short_prior_makes_a_short_scale_where_the_data_say_nothing() -> None:
    points, _ = data(4)
    short = GaussianProcess.fit(points, np.zeros(4), ORDERED, Prior(np.log([0.2, 0.4, 0.8, 1.6])))
    assert np.exp(short.log_scales)[:3] == pytest.approx([0.2, 0.4, 0.8], rel=0.5)
    assert np.all(np.diff(short.log_scales) > 0)
