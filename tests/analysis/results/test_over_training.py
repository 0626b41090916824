import dataclasses

import numpy as np
import pytest

from analysis.results import GeometryOverTraining, SpectrumOverTraining
from analysis.results.findings import FindingContext
from analysis.results.geometry import GeometryResult
from analysis.results.headlines import Headline


def followed(two_nn, nc1, *, steps=(0, 10), width=0.1) -> GeometryOverTraining:
    """The intrinsic dimension and NC1 at each step and layer, with intervals of so much to both sides."""
    rows = [
        (
            0,
            step,
            Headline(
                network=0,
                layer=f"block-{depth}",
                depth=depth,
                relative_depth=depth / len(values),
                measure=measure,
                value=value,
                low=value - width,
                high=value + width,
            ),
        )
        for measure, table in (("two_nn", two_nn), ("nc1", nc1))
        for step, values in zip(steps, table, strict=True)
        for depth, value in enumerate(values, start=1)
    ]
    return GeometryOverTraining.of(["small"], rows)


def verdicts(result) -> list[str]:
    return [finding.verdict for finding in result.findings(FindingContext(network="small"))]


def test_findings_follow_their_rules():
    flat, hill = [3.0, 3.1, 3.0], [3.0, 5.0, 3.0]
    fallen, overlapping = [[9.0, 9.0, 2.0], [9.0, 9.0, 1.0]], [[9.0, 9.0, 2.0], [9.0, 9.0, 1.9]]
    assert verdicts(followed([flat, hill], fallen)) == ["agrees", "agrees"]
    assert verdicts(followed([hill, flat], overlapping)) == ["differs", "differs"]
    assert verdicts(followed([flat, hill], fallen, width=np.nan)) == ["open", "agrees"]
    later = followed([flat, hill], fallen, steps=(5, 10))
    assert verdicts(later) == ["agrees"]  # nothing is known of the untrained network
    assert verdicts(followed([[3.0, 5.0]] * 2, [[2.0, 2.0], [2.0, 1.0]])) == ["agrees"]  # nor of two layers
    (finding,) = later.findings(FindingContext(network="small"))
    assert finding.here == "NC1 at block-3 is 2 (1.9 to 2.1) after 5 steps, 1 (0.9 to 1.1) after 10"
    assert verdicts(followed([flat], fallen[:1], steps=(0,))) == ["agrees"]


def test_summary_has_the_last_layer_by_step():
    result = followed([[3.0, 4.0], [5.0, np.nan]], [[2.0, 1.0], [2.0, 0.5]], steps=(10, 0))
    (network,) = result.summary()["networks"]
    assert (network["name"], network["layer"]) == ("small", "block-2")
    first, second = network["steps"]
    assert (first["step"], first["two_nn"], first["nc1"]) == (0, None, 0.5)
    assert (second["step"], second["two_nn"], second["two_nn_low"]) == (10, 4.0, 3.9)
    table = result.table()
    assert len(table) == 8
    assert table["network"].unique().tolist() == ["small"]


def test_saved_results_are_read_and_joined(tmp_path):
    result = followed([[3.0], [4.0]], [[2.0], [1.0]])
    result.save(tmp_path, {})
    read = GeometryOverTraining.load(tmp_path)
    assert read.summary() == result.summary()
    joined = GeometryOverTraining.join([read, result], ["a", "b"])
    assert [each["name"] for each in joined.summary()["networks"]] == ["a", "b"]
    strange = dataclasses.replace(result, measure=np.full(len(result.measure), "charm"))
    strange.save(tmp_path, {})
    with pytest.raises(ValueError, match="its measures include 'charm'; expected some of two_nn, participation_ratio"):
        GeometryOverTraining.load(tmp_path)


def test_headlines_of_spectra_are_quantiles_over_the_images(spectrum_result, spectra_by_depth):
    found = {(each.network, each.measure): each for each in spectrum_result.headlines()}
    assert {measure for _, measure in found} == {*SpectrumOverTraining.MEASURES}
    smallest = found[0, "smallest"]
    ends = np.array([0.1, 0.01])  # of the two images
    assert smallest.value == pytest.approx(np.median(ends))
    assert (smallest.low, smallest.high) == pytest.approx(tuple(np.quantile(ends, (0.1, 0.9))))
    assert found[0, "largest"].value == pytest.approx(10)
    assert found[0, "condition"].value == pytest.approx(np.median(10 / ends))
    first = [spectrum_result.spectrum(row) for row in (0, 1)]
    energy = np.median([each.energy(np.array([1]))[0, 0] for each in first])
    assert found[0, "energy_150"].value == pytest.approx(energy)
    assert np.isnan([found[1, "smallest"].value, found[1, "condition"].value]).all()  # there is no inverse
    one = spectra_by_depth.headlines()
    assert [each.depth for each in one[::4]] == [1, 2, 5]
    assert np.isnan([(each.low, each.high) for each in one]).all()


def test_headlines_of_probes_are_their_accuracies(probe):
    found = {(each.layer, each.measure): each for each in probe.headlines()}
    assert len(found) == 9
    svm, ratio = found["block-2", "svm_accuracy"], found["block-5", "distance_ratio"]
    assert (svm.value, svm.low, svm.high) == pytest.approx((0.75, 0.65, 0.8))
    assert (ratio.value, ratio.relative_depth) == (0.5, 1.0)
    assert np.isnan(ratio.low)
    assert found["block-1", "nn_accuracy"].value == pytest.approx(0.4)


def test_every_headline_of_geometry_has_a_name():
    assert [*GeometryOverTraining.MEASURES] == [*GeometryResult.HEADLINES]
