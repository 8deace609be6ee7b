"""The process: its gradient, its predictions by the textbook, its leave-one-out errors."""

from __future__ import annotations

import numpy as np
from scipy import optimize

from hwnas_sdk.predictors import gaussian_process as gp
from hwnas_sdk.predictors.gaussian_process import BlockProcess


def problem(n=40, seed=0):
    rng = np.random.default_rng(seed)
    blocks = (rng.normal(size=(n, 3)), rng.normal(size=(n, 2)))
    y = np.sin(blocks[0][:, 0]) + 0.5 * blocks[1][:, 1] + 0.05 * rng.normal(size=n)
    return blocks, y


def test_the_gradient_of_the_evidence_is_right():
    blocks, y = problem()
    distances = [gp._squared_distances(b, b) / 3.0 for b in blocks]
    for theta in ([-1.0, 0.5, 0.3, -1.5, 0.2], [0.0, -3.0, 1.0, -0.5, -2.0]):
        error = optimize.check_grad(
            lambda t: gp._negative_evidence(t, distances, y)[0],
            lambda t: gp._negative_evidence(t, distances, y)[1],
            np.array(theta),
        )
        assert error < 1e-3


def by_the_textbook(process, blocks):
    distances = [
        gp._squared_distances(new, old) / m
        for new, old, m in zip(blocks, process.blocks, process.medians, strict=True)
    ]
    cross = gp._kernel(process.theta, distances)
    inverse = np.linalg.inv(process.factor @ process.factor.T)
    variance = np.exp(process.theta[-3]) + np.exp(process.theta[-1]) + np.exp(2 * process.theta[-2])
    variance = variance - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    mean = process.shift + process.scale * cross @ process.coefficients
    return mean, process.scale * np.sqrt(variance)


def test_predictions(monkeypatch):
    blocks, y = problem()
    process = BlockProcess.fit(blocks, y)
    new, truth = problem(60, seed=1)
    monkeypatch.setattr(gp, "_CHUNK", 7)  # several chunks, the last one shorter
    mean, sd = process.predict(new)
    wanted_mean, wanted_sd = by_the_textbook(process, new)
    np.testing.assert_allclose(mean, wanted_mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(sd, wanted_sd, rtol=1e-6)
    assert np.corrcoef(mean, truth)[0, 1] > 0.9
    assert [len(part) for part in process.predict(tuple(b[:0] for b in new))] == [0, 0]


def test_leave_one_out_is_what_leaving_out_gives():
    blocks, y = problem(25)
    process = BlockProcess.fit(blocks, y)
    covariance = process.factor @ process.factor.T
    target = (y - process.shift) / process.scale
    for i in (0, 11, 24):
        rest = np.delete(np.arange(25), i)
        weights = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, i])
        sd = np.sqrt(covariance[i, i] - covariance[i, rest] @ weights)
        wanted = (target[i] - weights @ target[rest]) / sd
        assert abs(process.leave_one_out()[i] - wanted) < 1e-8


def test_conditioning_on_the_hyper_parameters_found_gives_the_same_process():
    blocks, y = problem()
    process = BlockProcess.fit(blocks, y)
    again = BlockProcess.condition(blocks, y, process.theta)
    np.testing.assert_array_equal(again.coefficients, process.coefficients)
