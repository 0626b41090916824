"""Trends over depth, against closed forms."""

import dataclasses
import json

import numpy as np
import pytest

from analysis.results import SpectrumResult
from analysis.results.depth_trends import depth_trend, fit_lines, mean_and_interval, overlap
from analysis.results.findings import FindingContext

CONTEXT = FindingContext(network="net", invertible=frozenset({"irevnet-b"}))


def test_a_line_is_that_of_least_squares():
    x, y = np.array([1.0, 3.0, 6.0, 16.0]), np.random.default_rng(0).normal(size=(3, 4))
    lines = fit_lines(x, y)
    slopes, intercepts = np.polyfit(x, y.T, 1)
    np.testing.assert_allclose(lines.slopes, slopes, rtol=1e-12)
    np.testing.assert_allclose(lines.intercepts, intercepts, rtol=1e-12)
    np.testing.assert_allclose(lines.r_squared, [np.corrcoef(x, each)[0, 1] ** 2 for each in y], rtol=1e-10)


def test_constant_values_have_no_r_squared():
    lines = fit_lines(np.arange(4.0), np.log(np.full((1, 4), 3.7)))
    assert abs(lines.slopes[0]) < 1e-15
    assert np.isnan(lines.r_squared[0])


def test_overlaps_of_the_same_of_orthogonal_and_of_random_subspaces():
    generator = np.random.default_rng(0)
    vectors = np.linalg.qr(generator.normal(size=(60, 8))).Q.T
    rotated = np.linalg.qr(generator.normal(size=(4, 4))).Q @ vectors[:4]
    assert overlap(vectors[:4], rotated) == pytest.approx(1)
    assert overlap(vectors[:4], vectors[4:]) == pytest.approx(0, abs=1e-12)
    turned = np.cos(0.3) * vectors[:4] + np.sin(0.3) * vectors[4:]
    assert overlap(vectors[:4], turned) == pytest.approx(np.cos(0.3) ** 2)
    random = [overlap(*generator.normal(size=(2, 4, 60))) for _ in range(400)]
    # A mean squared cosine in 60 dimensions has a deviation of about 0.02, the mean of 400 of 0.001.
    assert np.mean(random) == pytest.approx(4 / 60, abs=0.004)


def test_intervals_are_over_images_and_one_has_none():
    assert mean_and_interval(np.array([1.0, 3.0])) == pytest.approx({"mean": 2.0, "low": -10.706, "high": 14.706}, 1e-4)
    assert mean_and_interval(np.array([1.0])) == {"mean": 1.0, "low": None, "high": None}


def test_geometric_growth_is_linear_in_depth(spectra_with_directions):
    (trend,) = spectra_with_directions.depth_trends()
    assert trend.depths.tolist() == [1, 2, 3, 5]
    assert trend.ranks.tolist() == list(range(1, 151))
    # s_k = 10 * 2^(-depth (k - 1) / 149): of k = 1 constant, of all others a line
    np.testing.assert_allclose(trend.lines.slopes, np.tile(-np.log(2) * np.arange(150) / 149, (2, 1)), atol=1e-12)
    np.testing.assert_allclose(trend.lines.r_squared[:, 1:], 1)
    assert np.isnan(trend.lines.r_squared[:, 0]).all()
    assert trend.r_squared_of_largest == pytest.approx(1)
    np.testing.assert_allclose(trend.overlaps[:, 0], 0.5 * np.ones((2, 3)))
    np.testing.assert_allclose(trend.overlaps[:, 1], 1)
    assert trend.chance == 2 / 150
    summary = spectra_with_directions.summary()["depth_trends"][0]
    assert json.loads(json.dumps(summary)) == summary
    assert summary["ranks"][-1]["slope"]["mean"] == pytest.approx(-np.log(2))
    last = summary["overlaps"]["most"][2]
    assert last.pop("depths") == [3, 5]
    assert last == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5})


def test_trends_are_of_the_ranks_that_all_depths_have(geometric):
    low_rank = {"largest": np.array([10.0, 9, 8, 1e-30]), "largest_residuals": np.zeros(4)}
    known = [geometric(0.1), geometric(0.05), dataclasses.replace(geometric(0.1), **low_rank)]
    trend = depth_trend("net", [1, 2, 4], [[each] for each in known], [[None]] * 3)
    assert trend.ranks.tolist() == [1, 2, 3, 148, 149, 150]  # 1e-30 is rounding
    assert trend.num_largest == 3
    np.testing.assert_allclose(trend.values[0, :3, 2], [10, 9, 8])
    np.testing.assert_allclose(trend.values[0, 3:, 1], np.geomspace(10, 0.05, 150)[-3:])
    assert np.isnan(trend.overlaps).all()
    assert trend.summary()["overlaps"] == {}
    without = [dataclasses.replace(each, smallest=np.empty(0), smallest_residuals=np.empty(0)) for each in known]
    assert depth_trend("net", [1, 2, 4], [[each] for each in without], [[None]] * 3).ranks.tolist() == [1, 2, 3]


def test_few_depths_have_no_trend(spectra_by_depth):
    assert spectra_by_depth.depth_trends() == []
    assert "depth_trends" not in spectra_by_depth.summary()
    assert len(spectra_by_depth.findings(CONTEXT)) == 1


def test_statements_about_depth_are_judged(spectra_with_directions):
    decay, linear, aligned = spectra_with_directions.findings(CONTEXT)
    assert decay.source == "the paper"
    assert linear.source == aligned.source == "arXiv:2602.12384"
    assert linear.here.startswith(
        "the median R^2 of the lines through log s_k is 1.00 for the 150 largest, over 4 depths"
    )
    assert "overlap of 0.50 (of single steps 0.50 to 0.50; by chance 0.013), over 4 depths, at 2 images" in aligned.here
    assert (linear.verdict, aligned.verdict) == ("agrees", "agrees")
    bent = dataclasses.replace(spectra_with_directions, depth=np.repeat([1, 20, 21, 22], 2))
    assert bent.findings(CONTEXT)[1].verdict == "differs"
    vectors = spectra_with_directions.right_vectors.copy()
    vectors[:2] = np.roll(vectors[:2], 5, axis=-1)
    vectors[4:6] = np.roll(vectors[4:6], 7, axis=-1)
    apart = dataclasses.replace(spectra_with_directions, right_vectors=vectors).findings(CONTEXT)[2]
    assert apart.verdict == "differs"


def test_a_network_without_vectors_is_judged_by_its_values(spectra_with_directions):
    spectra = [spectra_with_directions.spectrum(row) for row in range(8)]
    fields = {name: getattr(spectra_with_directions, name).tolist() for name in ("network", "layer", "depth", "image")}
    result = SpectrumResult.of(spectra, networks=["a"], images=["cat", "dog"], **fields)
    assert len(result.findings(CONTEXT)) == 2
