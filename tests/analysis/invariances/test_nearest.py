import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from analysis.invariances.nearest import MeanHead, nearest_features
from irevnet.models.irevnet import Head


def random_head(classes: int, channels: int, *, shift: float = 0.0) -> MeanHead:
    scale = torch.randn(channels, dtype=torch.float64).sign() * (0.5 + torch.rand(channels, dtype=torch.float64))
    return MeanHead(
        scale=scale,
        shift=shift + torch.randn(channels, dtype=torch.float64),
        weight=torch.randn(classes, channels, dtype=torch.float64),
        bias=torch.randn(classes, dtype=torch.float64),
    )


def distances(features: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm((features - phi).flatten(1), dim=1)


def test_closed_form_of_the_head_is_the_head(trained_looking):
    head = trained_looking(torch.nn.Sequential(Head(6, 4)).double()).eval()[0]
    phi = torch.randn(3, 6, 2, 2, dtype=torch.float64)
    closed = MeanHead.of(head)
    torch.testing.assert_close(closed(phi), head(phi), rtol=1e-12, atol=1e-12)
    exact = torch.func.vmap(torch.func.jacrev(lambda x: head(x[None])[0]))(phi)
    torch.testing.assert_close(closed.rows(phi), exact.flatten(2), rtol=1e-12, atol=1e-12)


def test_where_no_value_reaches_zero_it_is_the_least_squares_solution():
    head = random_head(5, 12, shift=50.0)
    phi, others = torch.randn(2, 4, 12, 3, 3, dtype=torch.float64)
    logits = head(others)
    nearest = nearest_features(head, phi, logits)
    for image in range(4):
        rows = head.rows(phi)[image].numpy()
        missing = (logits - head(phi))[image].numpy()
        move = np.linalg.lstsq(rows, missing, rcond=None)[0]  # the solution of least norm
        np.testing.assert_allclose((nearest.features - phi)[image].flatten(), move, atol=1e-9 * np.abs(move).max())
        assert nearest.bound[image].item() == pytest.approx(np.linalg.norm(move), rel=1e-8)


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")  # of older releases of SciPy
def test_no_pattern_of_signs_has_nearer_features():
    """Against a search of all 2^6 choices of the values above zero, each a convex problem, by SciPy."""
    head, phi = random_head(2, 2, shift=0.5), torch.randn(1, 2, 1, 3, dtype=torch.float64)
    logits = head(2 * torch.randn(1, 2, 1, 3, dtype=torch.float64))
    nearest = nearest_features(head, phi, logits)
    assert nearest.found.all()
    torch.testing.assert_close(head(nearest.features), logits, rtol=1e-9, atol=1e-9)
    z = head.normalised(phi)[0].numpy()
    scale, weight = head.scale.numpy()[:, None], head.weight.numpy()
    wanted = (logits - head.bias)[0].numpy()
    best = np.inf
    for signs in itertools.product((True, False), repeat=6):
        above = np.array(signs).reshape(2, 3)
        found = minimize(
            lambda move: 0.5 * ((move.reshape(2, 3) / scale) ** 2).sum(),
            np.where(above, np.maximum(0, 0.1 - z), np.minimum(0, -z)).ravel(),
            method="SLSQP",
            bounds=[(-value, None) if up else (None, -value) for value, up in zip(z.ravel(), above.ravel())],
            constraints={
                "type": "eq",
                "fun": lambda move, above=above: weight @ ((z + move.reshape(2, 3)) * above).mean(axis=1) - wanted,
            },
            options={"ftol": 1e-14, "maxiter": 500},
        )
        if found.success:
            best = min(best, np.sqrt(2 * found.fun))
    distance = distances(nearest.features, phi).item()
    assert nearest.bound.item() <= best * (1 + 1e-6)
    assert nearest.bound.item() <= distance * (1 + 1e-9)
    assert distance <= best * 1.1  # of all patterns, of which some rounds look at a few


def test_bound_and_normal_equations_certify_the_nearest():
    head = random_head(10, 40)
    phi, others = torch.randn(2, 16, 40, 4, 4, dtype=torch.float64)
    logits = head(others)
    nearest = nearest_features(head, phi, logits)
    distance = distances(nearest.features, phi)
    assert (nearest.bound <= distance * (1 + 1e-9)).all()
    assert (nearest.bound >= 0.9 * distance).all()
    difference = torch.linalg.vector_norm(head(nearest.features) - logits, dim=1)
    assert (difference <= 1e-9 * torch.linalg.vector_norm(logits, dim=1)).all()
    # Among the values above zero the move is a combination of the gradients of the logits.
    for image in range(16):
        above = head.normalised(nearest.features)[image].flatten() > 1e-9
        rows = head.rows(nearest.features)[image].flatten(1)[:, above].numpy()
        move = (nearest.features - phi)[image].flatten()[above].numpy()
        weights = np.linalg.lstsq(rows.T, move, rcond=None)[0]
        assert np.linalg.norm(rows.T @ weights - move) <= 1e-8 * np.linalg.norm(move)


def test_channels_that_are_constant_do_not_move():
    head = random_head(3, 8)
    head.scale[2] = 0
    phi, others = torch.randn(2, 2, 8, 3, 3, dtype=torch.float64)
    nearest = nearest_features(head, phi, head(others))
    assert nearest.found.all()
    assert torch.equal(nearest.features[:, 2], phi[:, 2])


def test_logits_that_no_features_have_are_not_found():
    head = MeanHead(*(torch.tensor(x, dtype=torch.float64) for x in ([1.0], [0.0], [[1.0]], [0.0])))
    nearest = nearest_features(head, torch.ones(2, 1, 2, 2), torch.tensor([[-1.0], [0.5]]))
    assert nearest.found.tolist() == [False, True]
