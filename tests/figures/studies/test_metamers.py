import dataclasses

import numpy as np
import pytest

from analysis.results import MetamersResult
from analysis.results.findings import FindingContext
from figures import plot, table
from figures.studies.metamers import STEPS, page_blocks


@pytest.fixture
def result() -> MetamersResult:
    """Two pairs and two kinds, of which the second is not certified for the second pair; one judge."""
    rng, rows = np.random.default_rng(0), 4
    logits = np.eye(3)
    numbers = {
        name: np.linspace(0.1, 0.4, rows) for name in ("lowest", "highest", "outside", "target_feature_distance")
    }
    distances = {f"{name}_distance": np.linspace(0.1, 0.4, rows) for name in ("source", "target", "bounded", "pair")}
    return MetamersResult(
        depth=np.array(3),
        keep=np.array("logits"),
        exact=np.array(False),
        kinds=np.array(["nearest-features", "nearest-image"]),
        kind=np.array([0, 1, 0, 1]),
        names=np.array(["one", "two"]),
        pair=np.array([0, 0, 1, 1]),
        classes=np.array(["cat", "dog", "cow"]),
        **{name: rng.random((rows, 3, 4, 4)) for name in ("source", "target", "metamer", "bounded")},
        pixel_mean=np.zeros(3),
        pixel_std=np.ones(3),
        source_logits=logits[[0, 0, 1, 1]],
        target_logits=logits[[1, 1, 2, 2]],
        wanted_logits=logits[[0, 0, 1, 1]],
        metamer_logits=logits[[0, 0, 1, 2]],
        difference=np.array([1e-7, 1e-6, 0.0, 1.4]),
        identical=np.array([False, False, True, False]),
        clipped_difference=np.full(rows, 0.5),
        bounded_difference=np.full(rows, 1e-6),
        feature_bound=np.full(rows, 0.1),
        judges=np.array(["resnet"]),
        judged_source=np.array([["cat", "cat", "dog", "dog"]]),
        judged_target=np.array([["dog", "dog", "cow", "cow"]]),
        judged_metamer=np.array([["cat", "dog", "cow", "dog"]]),
        **numbers,
        **distances,
    )


def test_a_row_of_images_for_each_pair_says_what_networks_make_of_them(result):
    axes = plot(result).axes
    assert len(axes) == 2 * 6
    titles = ["A, whose logits", "B, whose features", "nearest-features", "within [0, 1]"]
    assert [each.get_title() for each in axes[:4]] == titles
    assert [axes[n].get_xlabel() for n in (0, 2, 10)] == [
        "cat\njudge: cat",
        "cat, 0.1 from B\njudge: cat",
        "cow, 0.4 from B\njudge: dog",
    ]
    np.testing.assert_allclose(axes[8].images[0].get_array(), result.metamer[2].transpose(1, 2, 0))
    unbounded = dataclasses.replace(result, bounded=result.bounded[:0], bounded_difference=np.full(4, np.nan))
    assert len(plot(unbounded).axes) == 2 * 4


def test_the_table_has_a_row_for_each_kind(result):
    made = table(result)
    assert [row[:3] for row in made.rows] == [
        ["nearest-features", "2 of 2", "1.0e-07"],
        ["nearest-image", "1 of 2", "1.4e+00"],
    ]
    assert made.headings[-2:] == ["resnet says A", "resnet says B"]
    assert made.rows[1][-2] == "50.0% (9.5% to 90.5%); by chance 50%"
    exact = table(dataclasses.replace(result, exact=np.array(True)))
    assert [row[1] for row in exact.rows] == ["1 of 2", "0 of 2"]


def test_shares_are_of_pairs_that_the_judge_tells_apart(result):
    alike = dataclasses.replace(result, judged_target=np.array([["cat", "dog", "cow", "cow"]]))
    share = alike.judged_as(0, 0)["B"]
    assert (share.count, share.total) == (1, 1)
    assert np.isnan(share.chance)
    nothing = dataclasses.replace(result, judged_target=result.judged_source).judged_as(0, 0)["A"]
    assert np.isnan([nothing.value, *nothing.interval]).all()
    assert table(dataclasses.replace(result, judged_target=result.judged_source)).rows[0][-1] == "-"


def test_findings_stand_beside_the_statements_of_their_source(result):
    findings = result.findings(FindingContext(network="x"))
    assert [finding.verdict for finding in findings] == ["agrees", "agrees", "differs", "differs"]
    assert "2 of 2 images have A's logits to 1e-05; their distance from B is 1 times" in findings[0].here
    assert "resnet gives 50% (9% to 91%) of them the class of B" in findings[1].here
    assert dataclasses.replace(result, keep=np.array("averages")).findings(FindingContext(network="x")) == []


def test_a_page_leads_from_the_other_image_to_the_metamer(result):
    (viewer,) = page_blocks(result, [])
    assert [line.name for line in viewer.lines] == ["one", "two"]
    frames = viewer.lines[0].strips[0].frames
    assert len(frames) == STEPS
    assert (frames[0].title, frames[-1].title) == ("B: dog", "metamer: cat, as A")


def test_images_of_more_rows_than_there_are_are_refused(result, tmp_path):
    damaged = dataclasses.replace(
        result,
        **{name: np.zeros((5, 3, 4, 4)) for name in ("source", "target", "metamer")},
    )
    with pytest.raises(ValueError, match=r"its metamers are of shape \(5, 3, 4, 4\); expected images of 4 rows"):
        damaged.check()
    with pytest.raises(ValueError, match="its 4 rows are not those of 2 kinds for each of 2 pairs"):
        dataclasses.replace(result, kind=np.array([0, 0, 1, 1])).check()
    result.save(tmp_path, {})
    assert MetamersResult.load(tmp_path).summary() == result.summary()
