import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC

from analysis.paths.directions import (
    COSTS,
    NORMAL_TOLERANCE,
    BetweenClasses,
    PrincipalComponent,
    _svm_normal,
    find_direction,
    parse_direction,
)
from irevnet.data.images import LabelledImages
from irevnet.data.transforms import InputTransform

CLASSES = ("cat", "dog", "maple-tree")


@pytest.fixture
def data() -> LabelledImages:
    """60 images of three classes, brighter in one channel each and, more so, brighter or darker by chance."""
    labels = [row % 3 for row in range(60)]
    images = 0.5 * torch.rand(60, 1, 1, 1) + 0.1 * torch.rand(60, 3, 8, 8)
    for row, label in enumerate(labels):
        images[row, label] += 0.15
    return LabelledImages(images, labels, CLASSES, InputTransform(channels=3, image_size=(8, 8)))


@pytest.fixture
def features(bijective, data) -> np.ndarray:
    return bijective.float().features(torch.stack([image for image, _ in data]), 3).detach().flatten(1).numpy()


def find(direction, model, data, generator) -> np.ndarray:
    step = find_direction(direction, model.float(), data, depth=3, generator=generator, batch_size=7)
    assert step.shape == model.config.feature_shape(3)
    return step.flatten().numpy()


def test_component_is_that_of_the_singular_value_decomposition(bijective, data, features, generator):
    step = find(PrincipalComponent(3), bijective, data, generator)
    centred = features.astype(np.float64) - features.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    expected = axes[2] * singular[2] / np.sqrt(60)
    expected *= np.sign(expected[np.abs(expected).argmax()])
    np.testing.assert_allclose(step, expected, atol=2e-4 * np.abs(expected).max())


def test_mean_step_leads_from_mean_to_mean(bijective, data, features, generator):
    labels = np.array(data.labels)
    step = find(BetweenClasses("mean", "cat", "maple-tree"), bijective, data, generator)
    expected = features[labels == 2].mean(axis=0) - features[labels == 0].mean(axis=0)
    np.testing.assert_allclose(step, expected, atol=1e-5)


def test_svm_step_separates_classes_and_joins_their_means(bijective, data, features, generator):
    labels = np.array(data.labels)
    step = find(BetweenClasses("svm", "dog", "cat"), bijective, data, generator)
    dogs, cats = features[labels == 1], features[labels == 0]
    unit = step / np.linalg.norm(step)
    assert (dogs @ unit).max() < (cats @ unit).min()
    way = cats.mean(axis=0) - dogs.mean(axis=0)
    assert np.linalg.norm(step) == pytest.approx(way @ unit, rel=1e-4)
    assert abs(way @ unit) < 0.999 * np.linalg.norm(way)  # it is not the difference of the means


def test_svm_normal_is_that_of_scikit_learn():
    """Of 90 images with 300 features, which vary most along four directions that do not separate the classes.

    The objective f has the modulus of convexity 1: a point is no farther from the minimum than the length of the
    gradient there, and than sqrt(2 (f - f*)). Coordinates x that were rounded by d, |d| <= u |x|, change the gradient
    2 C sum l y x by no more than 2 C sum (l |d| + |d| |v| |x|), for losses l and v = (w, b).
    """
    rng = np.random.default_rng(0)
    second = rng.random(90) < 0.4
    common = rng.normal(size=(4, 300))
    difference = common[0] + rng.normal(size=300)
    features = rng.normal(size=(90, 300)) + 6 * rng.normal(size=(90, 4)) @ common + second[:, None] * difference + 7
    features = features.astype(np.float32)
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    scaled = centred / np.sqrt(np.square(centred).mean())
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(LinearSVC(dual=False, tol=1e-10, max_iter=10_000), {"C": COSTS}, cv=folds).fit(scaled, second)
    theirs, C = search.best_estimator_, search.best_params_["C"]
    assert COSTS[0] < C < COSTS[-1]

    v, points = np.append(theirs.coef_, theirs.intercept_), np.column_stack((scaled, np.ones(90)))
    signs = np.where(second, 1.0, -1.0)
    losses = np.maximum(0, 1 - signs * (points @ v))
    gradient = v - 2 * C * points.T @ (signs * losses)
    lengths, length = np.linalg.norm(points, axis=1), np.linalg.norm(v)
    rounding = 2 * C * np.finfo(np.float32).eps / 2 * (lengths * (losses + lengths * length)).sum()
    objective = length**2 / 2 + C * losses @ losses
    bound = np.linalg.norm(gradient) + np.sqrt(2 * NORMAL_TOLERANCE * objective) + rounding
    found = _svm_normal(torch.from_numpy(features), torch.from_numpy(second)).numpy()
    assert np.linalg.norm(found - theirs.coef_[0]) <= bound < 1e-2 * np.linalg.norm(theirs.coef_)


def test_directions_are_parsed():
    assert parse_direction("pc:12", CLASSES) == PrincipalComponent(12)
    assert parse_direction("mean:dog-maple-tree", CLASSES) == BetweenClasses("mean", "dog", "maple-tree")
    assert parse_direction("svm:maple-tree-cat", CLASSES) == BetweenClasses("svm", "maple-tree", "cat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is no direction; expected pc:NUMBER, svm:CLASS-CLASS or") for text in ("pc:0", "pc:x", "svm:cat")),
        ("ica:cat-dog", "'ica:cat-dog' is no direction; expected pc:NUMBER"),
        ("svm:cat-cow", "'svm:cat-cow' does not name two classes; there are cat, dog, maple-tree"),
        ("mean:cat-cat", "'mean:cat-cat' does not name two classes"),
    ],
)
def test_text_that_is_no_direction_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_direction(text, CLASSES)


def test_too_few_images_are_refused(bijective, data, generator):
    with pytest.raises(ValueError, match="component 60 was asked for; 60 images of"):
        find(PrincipalComponent(60), bijective, data, generator)
    few = LabelledImages(data.images[:5], data.labels[:5], CLASSES, data.transform)
    with pytest.raises(ValueError, match="cat has 2 training images, maple-tree 1; a direction between them needs at"):
        find(BetweenClasses("svm", "cat", "maple-tree"), bijective, few, generator)


def test_no_direction_leads_along_what_does_not_vary(bijective, data, generator):
    data.images[::2] = data.images[0]
    data.images[1::2] = data.images[1]
    with pytest.raises(ValueError, match="features do not vary along component 2 at this depth; choose a lower one"):
        find(PrincipalComponent(2), bijective, data, generator)
    data.images[:] = data.images[0].clone()
    for direction, what in {
        PrincipalComponent(1): "the features of all 60 images",
        BetweenClasses("mean", "cat", "dog"): "the mean features of cat and dog",
    }.items():
        with pytest.raises(ValueError, match=f"{what} are the same at this depth, and no direction leads"):
            find(direction, bijective, data, generator)


def test_features_that_are_not_finite_are_refused(bijective, data, generator):
    data.images[3] = 3e38
    with pytest.raises(ValueError, match="features at depth 3 are not finite; the network's weights are broken, or"):
        find(PrincipalComponent(1), bijective, data, generator)
