"""The headline numbers of the spectra of one layer at several images, as plain values for JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.results.base import finite_or_none
from analysis.results.directions import ENDS, Directions
from analysis.results.singular_values import Spectrum

SHARES = (0.80, 0.97)
"""Shares of the energy that the first 10^3 and 10^4 singular values hold in the paper."""

PAPER_COUNTS = (1_000, 10_000)
PAPER_DIVISORS = (150, 15)
"""The paper's counts, of 150,528 singular values: as they are, and as divisors of the dimension."""


def layer_summary(
    spectra: Sequence[Spectrum], directions: Sequence[Directions | None], images: Sequence[str]
) -> dict[str, Any]:
    """Quantiles over the images, and the numbers of each.

    Args:
        spectra: spectrum at each image.
        directions: directions around each image, where they were asked for.
        images: names of the images.
    """
    first = spectra[0]
    counts = {str(d): d for d in PAPER_COUNTS if d <= first.count}
    counts |= {f"n/{divisor}": max(1, round(first.count / divisor)) for divisor in PAPER_DIVISORS}
    each = [_numbers(*row) for row in zip(spectra, directions, images)]
    dims = {name: [float(numbers["dims"][name]["d"]) for numbers in each] for name in each[0]["dims"]}
    known = [one for one in directions if one is not None]
    return {
        "inputs": first.num_inputs,
        "outputs": first.num_outputs,
        "images": len(spectra),
        "method": first.method,
        "largest": _quantiles([float(spectrum.largest[0]) for spectrum in spectra]),
        "condition": _quantiles([spectrum.condition for spectrum in spectra]),
        "dims": {name: _quantiles(values) for name, values in dims.items()},
        "energy": {
            name: {"d": d, **_quantiles([float(spectrum.energy(np.array([d]))[0, 0]) for spectrum in spectra])}
            for name, d in counts.items()
        },
        **({"directions": _directions(known)} if known else {}),
        "each": each,
    }


HEADLINES = {
    "largest": "largest singular value",
    "smallest": "smallest singular value",
    "condition": "condition number",
    "energy_150": f"E(n/{PAPER_DIVISORS[0]}), share of the energy",
}
"""What each number that is followed over training is called, by its code."""


def headline_numbers(spectra: Sequence[Spectrum]) -> dict[str, tuple[float, float, float]]:
    """The median over the images of each of `HEADLINES`, with the 10% and the 90% quantile, which one image has not;
    NaN where an image's is not known or infinite."""
    d = np.array([max(1, round(spectra[0].count / PAPER_DIVISORS[0]))])
    values = {
        "largest": [float(one.largest[0]) for one in spectra],
        "smallest": [float(one.largest[0]) / one.condition for one in spectra],
        "condition": [one.condition for one in spectra],
        "energy_150": [float(one.energy(d)[0, 0]) for one in spectra],
    }
    found = {}
    for code, each in values.items():
        known = _quantiles(each)
        names = ("median", "q10", "q90") if len(each) > 1 else ("median",)
        median, *ends = (np.nan if known[name] is None else known[name] for name in names)
        found[code] = (median, *(ends or (np.nan, np.nan)))
    return found


def _directions(known: Sequence[Directions]) -> dict[str, Any]:
    """Of each end the most extreme direction, over the images, and the worst residual of all."""
    return {
        name: {
            "vectors": known[0].vector_values.shape[1],
            "singular_value": _quantiles([float(one.vector_values[end, 0]) for one in known]),
            "worst_residual": finite_or_none(np.max([one.vector_residuals[end] for one in known])),
            "pixel_change": _quantiles([float(one.pixel_changes[end, 0].mean()) for one in known]),
            "first_order": _quantiles([float(one.first_order[end, 0].mean()) for one in known]),
        }
        for end, name in enumerate(ENDS)
        if all(name in one.known_ends for one in known)
    }


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """The median and the 10% and 90% quantiles; `None` if one is not known or infinite."""
    if not np.isfinite(values).all():
        return {"median": None, "q10": None, "q90": None}
    return {name: float(np.quantile(values, q)) for name, q in {"median": 0.5, "q10": 0.1, "q90": 0.9}.items()}


def _numbers(spectrum: Spectrum, directions: Directions | None, image: str) -> dict[str, Any]:
    """The numbers of one image, with those that say how far they are to be trusted."""
    return {
        "image": image,
        "num_values": len(spectrum.largest),
        "num_converged": spectrum.num_converged,
        "worst_residual": finite_or_none(np.max(spectrum.largest_residuals) / spectrum.largest[0]),
        "loss_of_orthogonality": spectrum.loss_of_orthogonality,
        "num_products": spectrum.num_products,
        "squared_norm": spectrum.squared_norm,
        "squared_norm_error": spectrum.squared_norm_error,
        "largest": float(spectrum.largest[0]),
        "smallest": finite_or_none(spectrum.largest[0] / spectrum.condition),
        "condition": finite_or_none(spectrum.condition),
        "log_volume": [finite_or_none(each) for each in spectrum.log_volume],
        "log_volume_error": finite_or_none(spectrum.log_volume_error),
        "dims": {f"{share:.0%}": dict(zip(("d", "low", "high"), spectrum.dims_holding(share))) for share in SHARES},
        **({} if directions is None else {"directions": directions.summary()}),
    }
