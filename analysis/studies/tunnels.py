"""The tunnel of a network: linear probes on its own data and on other data, at each depth."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from analysis.geometry.tunnel import find_tunnel
from analysis.probes.network_features import NetworkFeatures
from analysis.probes.probing import ProbeOptions
from analysis.studies.depth_probe import check_can_be_fitted, probe_networks
from irevnet.utils.lookup import names_apart
from irevnet.utils.progress import Track


def find_tunnels(
    probed: Mapping[str, Sequence[NetworkFeatures]], seed: int, device: str, track: Track
) -> dict[str, ndarray]:
    """The fields of a result that say how linear probes do on each of the data, and where tunnels are."""
    for networks in probed.values():
        check_can_be_fitted(networks[0], ProbeOptions())
    found = [probe_networks(networks, seed=seed, device=device, track=track) for networks in probed.values()]
    totals = np.array([len(networks[0].test_labels) for networks in probed.values()])
    right = np.rint(np.array([each.svm_accuracy for each in found]) * totals[:, None]).astype(np.int64)
    network, depth = found[0].network, found[0].depth.astype(np.float64)
    tunnels = []
    for number in np.unique(network):
        rows = np.flatnonzero(network == number)
        rows = rows[np.argsort(depth[rows], kind="stable")]
        tunnel = find_tunnel(right[0, rows], int(totals[0]), right[1:, rows], totals[1:], seed=seed)
        tunnels.append((depth[rows][tunnel.start], depth[rows][tunnel.peak], tunnel.change))
    start, peak, change = map(np.array, zip(*tunnels))
    return {
        "probe_data": np.array(names_apart([Path(name).name for name in probed], list(probed))),
        "probe_accuracy": np.stack([each.svm_accuracy for each in found], axis=1),
        "probe_interval": np.stack([each.svm_interval for each in found], axis=1),
        "tunnel_start": start,
        "other_peak": peak,
        "other_change": change,
    }
