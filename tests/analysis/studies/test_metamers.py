import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from analysis.experiment import Experiment
from analysis.invariances.find import MetamerFinder, Metamers, check_bijective
from analysis.invariances.nearest import Nearest
from analysis.invariances.record import record_metamers
from analysis.invariances.wanted import towards
from analysis.opening import open_experiment
from analysis.results import MetamersResult
from analysis.studies import metamers as study
from analysis.studies.metamers import MetamerOptions, metamers
from irevnet.models.invertible import InvertibleChain


@pytest.fixture
def opened(finished_run, tmp_path) -> Callable[..., Experiment]:
    def make(**options) -> Experiment:
        return open_experiment(finished_run, out=tmp_path / "metamers", device="cpu", **options)

    return make


def of_kind(result: MetamersResult, name: str) -> np.ndarray:
    return result.rows_of(result.kinds.tolist().index(name))


def test_metamers_have_the_logits_of_the_first_image_computed_anew(opened):
    experiment = opened()
    result = metamers([experiment, experiment], MetamerOptions(num_pairs=3, bounded=True))
    assert result.metamer.shape == result.source.shape == result.bounded.shape == (6, 1, 8, 8)
    model = experiment.checkpoint.model
    with torch.no_grad():
        again, wanted, bounded = (
            model(torch.from_numpy(images)).double().numpy()
            for images in (result.metamer, result.source, result.bounded)
        )
    norms = np.linalg.norm(wanted, axis=1)
    assert (np.linalg.norm(again - wanted, axis=1) <= 1e-5 * norms).all()
    differences = np.linalg.norm(bounded - wanted, axis=1) / norms  # not every image has one within bounds nearby
    np.testing.assert_allclose(result.bounded_difference, differences, atol=1e-6)
    pixels = result.pixels(result.bounded)
    assert -1e-6 <= pixels.min() <= pixels.max() <= 1 + 1e-6
    np.testing.assert_array_equal(result.source_logits, wanted)
    assert [result.certified(result.rows_of(kind)) for kind in range(2)] == [3] * 2
    nearest, image = of_kind(result, "nearest-features"), of_kind(result, "nearest-image")
    distance, bound = result.target_feature_distance[nearest], result.feature_bound[nearest]
    assert (bound <= distance * (1 + 1e-5)).all()
    assert (bound >= 0.9 * distance).all()
    assert (distance <= result.target_feature_distance[image]).all()
    # The network itself sees A in all of them that are not clipped.
    assert (result.metamer_logits.argmax(axis=1) == wanted.argmax(axis=1)).all()
    assert set(result.summary()["kinds"]["nearest-image"]["judges"]) == {experiment.name}


def test_exact_metamers_have_the_same_logits_to_the_last_bit(opened):
    experiment = opened(bits=14)
    result = metamers([experiment], MetamerOptions(num_pairs=5))
    assert result.exact
    assert result.kinds.tolist() == ["nearest-features"]
    assert result.identical.all()
    again = experiment.checkpoint.model(torch.from_numpy(result.metamer))
    assert torch.equal(again, torch.from_numpy(result.source_logits))
    assert (result.source_distance > 0).all()


@torch.no_grad()
def test_rearranged_features_have_the_same_logits(bijective):
    a, b = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    for model, equal in ((bijective, False), (bijective.exact(), True)):
        finder = MetamerFinder(model, depth=model.num_blocks, keep="logits")
        phi, other = finder.features(a), finder.features(b)
        rearranged, reverse = finder.rearranged(phi, other), finder.reversed(phi)
        for found in (rearranged, reverse):
            torch.testing.assert_close(model(found.images), model(a), rtol=1e-9, atol=1e-9)
            assert torch.equal(model(found.images), model(a)) or not equal
            assert (found.images - a).abs().max() > 0.01
        distance = [torch.linalg.vector_norm(finder.features(found.images) - phi) for found in (rearranged, reverse)]
        assert distance[0] < distance[1]


@pytest.mark.parametrize("bits", [None, 14])
def test_averages_are_kept_at_any_depth(opened, bits):
    experiment = opened(bits=bits)
    result = metamers([experiment], MetamerOptions(num_pairs=3, depth=5, kinds=("nearest-features", "rearranged")))
    assert (result.keep, int(result.depth)) == ("averages", 5)
    model = experiment.checkpoint.invertible
    averages = [
        model.features(torch.from_numpy(images).to(torch.float64 if bits else torch.float32), 5)
        .double()
        .mean(dim=(2, 3))
        for images in (result.metamer, result.source)
    ]
    if bits:
        assert torch.equal(*averages)
        assert result.identical.all()
    else:
        difference = torch.linalg.vector_norm(averages[0] - averages[1], dim=1)
        assert (difference <= 1e-5 * torch.linalg.vector_norm(averages[1], dim=1)).all()


def test_a_class_is_reached_with_the_asked_confidence(opened):
    result = metamers([opened()], MetamerOptions(num_pairs=3, kinds=("nearest-features",), towards="3:0.95"))
    probability = torch.from_numpy(result.metamer_logits).softmax(dim=1)
    number = result.classes.tolist().index("3")
    np.testing.assert_allclose(probability[:, number], 0.95, atol=1e-4)
    others = [n for n in range(len(result.classes)) if n != number]
    odds = probability[:, others] / probability[:, others].sum(dim=1, keepdim=True)
    before = torch.from_numpy(result.target_logits)[:, others].softmax(dim=1)
    torch.testing.assert_close(odds, before, rtol=1e-3, atol=1e-6)


def test_logits_of_a_file_are_reached(opened, tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 10))
    np.save(tmp_path / "logits.npy", logits)
    options = MetamerOptions(num_pairs=2, kinds=("nearest-features",), towards=str(tmp_path / "logits.npy"))
    np.testing.assert_allclose(metamers([opened()], options).metamer_logits, logits, atol=1e-4)


def test_a_direction_is_followed_as_far_as_logits_allow(opened):
    options = MetamerOptions(num_pairs=2, kinds=("nearest-features",), direction="pc:2", distance=0.5)
    result = metamers([opened()], options)
    assert result.certified(np.arange(2)) == 2
    assert result.names.tolist() == [
        f"{name} along pc:2" for name in (each.split(" along")[0] for each in result.names)
    ]
    # The features of B are those of A, moved by half a standard deviation.
    model = opened().checkpoint.invertible
    a, b = (model.features(torch.from_numpy(images), 12).flatten(1) for images in (result.source, result.target))
    torch.testing.assert_close((b - a)[0], (b - a)[1], rtol=1e-3, atol=1e-4)


def test_interrupted_work_goes_on_where_it_was(opened, monkeypatch):
    computed = []

    def interrupt(*given, **more) -> dict[str, np.ndarray]:
        computed.append(1)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return record_metamers(*given, **more)

    monkeypatch.setattr(study, "PART", 2)
    monkeypatch.setattr(study, "record_metamers", interrupt)
    options = MetamerOptions(num_pairs=6, kinds=("nearest-features",))
    with pytest.raises(KeyboardInterrupt):
        metamers([opened()], options)
    result = metamers([opened()], options)
    assert len(computed) == 4
    assert len(result.metamer) == 6
    once = metamers([opened()], dataclasses.replace(options, num_kept=2))
    assert len(computed) == 4
    np.testing.assert_array_equal(once.metamer, result.metamer[:2])


def test_heads_without_a_closed_form_are_followed_by_steps():
    chain = InvertibleChain([nn.PixelUnshuffle(2)], nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh())).double()
    finder = MetamerFinder(chain.eval(), depth=1, keep="logits")
    a, b = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64)
    found = finder.nearest_features(finder.features(b), finder.kept(a))
    torch.testing.assert_close(chain(found.images), chain(a), rtol=1e-5, atol=1e-5)
    assert found.bound.isnan().all()


def test_injective_networks_are_refused_with_their_residual(injective):
    finder = MetamerFinder(injective, depth=injective.num_blocks, keep="logits")
    with pytest.raises(ValueError, match=r"not bijective: it makes 512 features of 192 inputs, and .* by \d+\.\d%"):
        check_bijective(finder, torch.rand(2, 3, 8, 8, dtype=torch.float64))


def test_networks_whose_head_is_not_known_are_refused(bijective):
    chain = InvertibleChain([nn.PixelUnshuffle(2)]).eval()
    with pytest.raises(ValueError, match="what a InvertibleChain makes of its last features is not known"):
        MetamerFinder(chain, depth=1, keep="logits")
    with pytest.raises(ValueError, match=r"logits are known from the features of the last depth, .*, and `depth` is 1"):
        MetamerFinder(bijective, depth=1, keep="logits")
    flat = InvertibleChain([nn.PixelUnshuffle(2)]).eval()
    flat.features = lambda images, depth=None: images.flatten(1)  # type: ignore[method-assign]
    finder = MetamerFinder(flat, depth=1, keep="averages")
    with pytest.raises(ValueError, match=r"are of shape \(64,\) an image; metamers take maps"):
        finder.features(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("nearest",)}, "there is no kind 'nearest'; did you mean nearest-"),
        ({"kinds": ("reversed", "reversed")}, "`kinds` names reversed, reversed; expected each but once"),
        (
            {"kinds": ("rearranged",)},
            "features of depth 12 have one value a channel, and there is nothing to rearrange",
        ),
        ({"keep": "averages", "bounded": True}, "nearest-image and `bounded` are for logits"),
        ({"keep": "averages", "towards": "3:0.9"}, "`towards` names logits, and averages are kept"),
        ({"towards": "3:0.9", "kinds": ("reversed",)}, "rearranged features keep the logits of A"),
        ({"towards": "3:0.9", "direction": "pc:1"}, "`towards` and `direction` were given"),
        ({"towards": "3"}, "`towards` is '3'; expected a class and its confidence, such as 0:0.99"),
        ({"towards": "three:0.9"}, "there is no class 'three'; known: 0, 1"),
        ({"towards": "3:1.5"}, "the confidence is 1.5; expected a number between 0 and 1"),
        ({"towards": "none.npy"}, "there is no file of logits none.npy"),
        ({"distance": 2.0}, "`distance` was given without `direction`"),
        ({"pairs": Path("pairs.csv"), "towards": "3:0.9"}, "`pairs` was given with images, `towards` or `direction`"),
        ({"files": [Path("a.png")]}, "1 images were given; give two, A and B, or a table of pairs"),
    ],
)
def test_what_does_not_fit_together_is_refused(opened, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        metamers([opened()], MetamerOptions(**options))


def test_exact_arithmetic_refuses_what_needs_derivatives(opened):
    experiment = opened(bits=14)
    with pytest.raises(ValueError, match="nearest-image and `bounded` need derivatives"):
        metamers([experiment], MetamerOptions(kinds=("nearest-image",)))
    finder = MetamerFinder(experiment.checkpoint.invertible, depth=12, keep="logits")
    with pytest.raises(ValueError, match="exact arithmetic rounds and has no derivative"):
        finder.nearest_image(torch.rand(1, 1, 8, 8), torch.zeros(1, 10))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (
            np.zeros(9),
            r"holds float64 of shape \(9,\); expected floating-point logits, \(10,\) for all images or \(2, 10\)",
        ),
        (np.full(10, np.nan), "holds logits that are not finite"),
    ],
)
def test_logits_of_a_file_that_do_not_fit_are_refused(opened, tmp_path, logits, message):
    np.save(tmp_path / "logits.npy", logits)
    with pytest.raises(ValueError, match=message):
        metamers([opened()], MetamerOptions(num_pairs=2, towards=str(tmp_path / "logits.npy")))


def test_what_no_image_has_is_refused(opened, monkeypatch):
    monkeypatch.setattr("analysis.invariances.find.nearest_features", lambda head, phi, logits: _unmoved(phi))
    with pytest.raises(ValueError, match="no nearest-features image has the logits asked for: the nearest differ"):
        metamers([opened()], MetamerOptions(num_pairs=2, kinds=("nearest-features",)))


def _unmoved(phi: torch.Tensor) -> Nearest:
    return Nearest(features=phi, bound=torch.zeros(len(phi)).double(), found=torch.zeros(len(phi), dtype=torch.bool))


def test_networks_without_logits_of_classes_are_refused(opened, monkeypatch):
    experiment = opened()
    monkeypatch.setattr(type(experiment.checkpoint), "has_logits", False)
    with pytest.raises(ValueError, match="the outputs of this network are no logits of trained classes"):
        metamers([experiment])


def test_broken_images_are_refused(opened, monkeypatch):
    broken = Metamers(torch.full((2, 1, 8, 8), torch.nan), torch.zeros(2).double())
    monkeypatch.setattr(MetamerFinder, "_image_of", lambda *_: broken)
    with pytest.raises(ValueError, match="nearest-features images are not finite"):
        metamers([opened()], MetamerOptions(num_pairs=2))


def test_towards_moves_one_class_alone():
    logits = torch.randn(4, 7, dtype=torch.float64)
    moved = towards(logits, 2, 0.7)
    torch.testing.assert_close(moved.softmax(dim=1)[:, 2], torch.full((4,), 0.7).double())
    torch.testing.assert_close(moved.sum(dim=1), logits.sum(dim=1))
