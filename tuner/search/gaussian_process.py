"""A small Gaussian process: Matérn 5/2, a length scale for every axis, fitted by maximum a posteriori.

    k(x, x') = s² (1 + √5 r + 5/3 r²) exp(-√5 r),   r² = Σ_i (x_i - x'_i)² / ℓ_i²

On an axis without order, different values are all equally far apart. Length scales have log-normal priors, whose
medians say what is believed to matter: short where a parameter matters much (Rasmussen and Williams, 2006, ch. 5;
Hvarfner et al., 2024, for priors that grow with the number of axes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

Array = NDArray[np.float64]

_APART = 1.0
"""The distance between two different values of an axis without order, on the unit scale."""

_JITTER = 1e-8


@dataclass(frozen=True)
class Prior:
    """What is believed before there are data; all on the scale of standardised values.

    Attributes:
        log_scales: the medians of log ℓ, shape (D,).
        scale_deviation: the deviation of log ℓ.
        log_noise: the median of the noise's log variance.
        noise_deviation: the deviation of the noise's log variance.
        signal_deviation: the deviation of the signal's log variance, whose median is 0.
    """

    log_scales: Array
    scale_deviation: float = 0.7
    log_noise: float = math.log(0.01)
    noise_deviation: float = 1.5
    signal_deviation: float = 1.0


@dataclass(frozen=True)
class GaussianProcess:
    """A posterior over functions of points in the unit cube.

    Attributes:
        points: what was observed, shape (N, D).
        values: what was found there, shape (N,).
        ordered: the axes whose neighbouring values are alike, shape (D,).
        log_scales: log ℓ, shape (D,).
        log_noise: log of the noise's variance.
        log_signal: log s².
        factor: the lower Cholesky factor of the covariance of the observations, shape (N, N).
    """

    points: Array
    values: Array
    ordered: NDArray[np.bool_]
    log_scales: Array
    log_noise: float
    log_signal: float
    factor: Array

    @classmethod
    def fit(
        cls, points: Array, values: Array, ordered: NDArray[np.bool_], prior: Prior, steps: int = 40
    ) -> GaussianProcess:
        """Find the most probable length scales, noise and signal, and condition on the observations.

        Args:
            points: shape (N, D), N at least 1.
            values: shape (N,), standardised.
            ordered: shape (D,).
            prior: what is believed before.
            steps: steps of L-BFGS at most.
        """
        pairs = _Pairs(_squared(points, points, ordered))
        start = np.concatenate([prior.log_scales, [prior.log_noise, 0.0]])
        low = np.concatenate([prior.log_scales - 3.0, [math.log(1e-5), -3.0]])
        high = np.concatenate([prior.log_scales + 3.0, [math.log(1.0), 3.0]])
        found = minimize(
            _loss,
            start,
            args=(pairs, values, prior),
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([low, high], axis=1),
            options={"maxiter": steps},
        )
        log_scales, log_noise, log_signal = found.x[:-2], float(found.x[-2]), float(found.x[-1])
        covariance = _matern(pairs.distance(log_scales), log_signal)
        factor = pairs.factor(covariance, log_signal, log_noise)
        return cls(points, values, ordered, log_scales, log_noise, log_signal, factor)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and variance of the function (without noise) at points of shape (M, D); both of shape (M,)."""
        across = self._across(points)
        mean = across.T @ cho_solve((self.factor, True), self.values)
        explained = solve_triangular(self.factor, across, lower=True)
        variance = math.exp(self.log_signal) - np.einsum("nm,nm->m", explained, explained)
        return mean, np.maximum(variance, 1e-12)

    def imagine(self, point: Array) -> GaussianProcess:
        """The process as if the mean had been observed at a point of shape (D,): the kriging believer."""
        mean, _ = self.predict(point[None])
        across = self._across(point[None])[:, 0]
        row = solve_triangular(self.factor, across, lower=True)
        own = math.exp(self.log_signal) + math.exp(self.log_noise) + _JITTER
        corner = math.sqrt(max(own - float(row @ row), _JITTER))
        count = len(self.values)
        factor = np.zeros((count + 1, count + 1))
        factor[:count, :count], factor[count, :count], factor[count, count] = self.factor, row, corner
        return replace(
            self,
            points=np.concatenate([self.points, point[None]]),
            values=np.concatenate([self.values, mean]),
            factor=factor,
        )

    def _across(self, points: Array) -> Array:
        """The covariance between observations and points, shape (N, M)."""
        distance = _between(self.points, points, self.ordered, self.log_scales)
        return _matern(distance, self.log_signal)


def _squared(one: Array, other: Array, ordered: NDArray[np.bool_]) -> Array:
    """Squared distances on every axis, shape (D, N, M)."""
    difference = one.T[:, :, None] - other.T[:, None, :]
    apart = (np.abs(difference) > 1e-9) * _APART**2
    return np.where(ordered[:, None, None], difference**2, apart)


def _between(one: Array, other: Array, ordered: NDArray[np.bool_], log_scales: Array) -> Array:
    """√5 r between points, shape (N, M): a matrix product finds the axes with order all at once."""
    scales = np.exp(log_scales)
    a, b = one[:, ordered] / scales[ordered], other[:, ordered] / scales[ordered]
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * (a @ b.T)
    for j in np.flatnonzero(~ordered):
        squared += (np.abs(one[:, j, None] - other[:, j]) > 1e-9) * (_APART / scales[j]) ** 2
    distance: Array = np.sqrt(5.0 * np.maximum(squared, 0.0))  # rounding can leave it below 0
    return distance


def _matern(distance: Array, log_signal: float) -> Array:
    """The covariance at √5 r."""
    return math.exp(log_signal) * (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)


class _Pairs:
    """Every two of N observations once, P pairs: half of a matrix that is symmetric.

    Args:
        squared: squared distances on every axis, shape (D, N, N).

    Attributes:
        first, second: which observations, shape (P,).
        squared: shape (D, P).
    """

    def __init__(self, squared: Array) -> None:
        self.count = squared.shape[1]
        self.first, self.second = np.tril_indices(self.count, -1)
        self._place = self.first + self.count * self.second  # in memory, column after column, as LAPACK has it
        self.squared = squared[:, self.first, self.second]

    def distance(self, log_scales: Array) -> Array:
        """√5 r, shape (P,)."""
        return np.sqrt((5.0 * np.exp(-2.0 * log_scales)) @ self.squared)

    def factor(self, covariance: Array, log_signal: float, log_noise: float) -> Array:
        """The lower Cholesky factor of the noisy covariance, shape (N, N), of the covariance of each pair."""
        flat = np.zeros(self.count**2)
        flat[self._place] = covariance
        flat[:: self.count + 1] = math.exp(log_signal) + math.exp(log_noise) + _JITTER
        matrix = flat.reshape(self.count, self.count, order="F")
        lower: Array = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
        return lower

    def of(self, matrix: Array) -> Array:
        """What a matrix has for each pair, below its diagonal."""
        values: Array = matrix.ravel(order="F")[self._place]
        return values


def _loss(theta: Array, pairs: _Pairs, values: Array, prior: Prior) -> tuple[float, Array]:
    """The negative log posterior of (log ℓ, log noise, log s²), and its gradient."""
    log_scales, log_noise, log_signal = theta[:-2], float(theta[-2]), float(theta[-1])
    signal, noise = math.exp(log_signal), math.exp(log_noise)
    distance = pairs.distance(log_scales)
    decay = signal * np.exp(-distance)
    covariance = decay * (1.0 + distance + distance**2 / 3.0)
    factor = pairs.factor(covariance, log_signal, log_noise)
    inverse, _ = dpotri(factor, lower=True)  # a third of the work of solving for the identity
    weights = cho_solve((factor, True), values, check_finite=False)
    fit = 0.5 * float(values @ weights) + float(np.log(np.diag(factor)).sum())
    # d loss / d covariance, of which each pair is in the matrix twice; the rest is the chain rule.
    slope = pairs.of(inverse) - weights[pairs.first] * weights[pairs.second]
    slope_of_own = 0.5 * float((np.diag(inverse) - weights**2).sum())
    by_distance = (slope * decay * (1.0 + distance)) * (5.0 / 3.0)  # times Δ_i² / ℓ_i² is d loss / d log ℓ_i
    by_scales = np.exp(-2.0 * log_scales) * (pairs.squared @ by_distance)
    by_noise = noise * slope_of_own
    by_signal = float(slope @ covariance) + signal * slope_of_own
    off_scales = (log_scales - prior.log_scales) / prior.scale_deviation
    off_noise = (log_noise - prior.log_noise) / prior.noise_deviation
    off_signal = log_signal / prior.signal_deviation
    loss = fit + 0.5 * (float(off_scales @ off_scales) + off_noise**2 + off_signal**2)
    gradient = np.concatenate(
        [
            by_scales + off_scales / prior.scale_deviation,
            [by_noise + off_noise / prior.noise_deviation, by_signal + off_signal / prior.signal_deviation],
        ]
    )
    return loss, gradient
