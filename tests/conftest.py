"""What several tests share. Numerical tests run in float64 unless they are about float32."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hypothesis
import jaxtyping
import numpy as np
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch
import torchvision  # noqa: F401
from filelock import FileLock
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

from analysis.results import (
    DepthProbeResult,
    InterpolationResult,
    InversionResult,
    PCASweepResult,
    ProbeResult,
    Spectrum,
    SpectrumResult,
)
from analysis.results.directions import Directions
from irevnet import IRevNet, IRevNetConfig, list_models
from irevnet.models import zoo
from irevnet.models.zoo import ModelInfo
from irevnet.training.config import recipe
from irevnet.training.runs import new_run
from irevnet.training.settings import RunSettings

# pandas, SciPy and torchvision are here to be imported before the toolkit. jaxtyping's hook, through which the toolkit
# goes, keeps compiled code under names of its own, and so it does for whatever a module of the toolkit is the first to
# import: 1,700 files, which every process compiles anew, for 7 seconds, where Python may not write.

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what a GPU finds, benchmarks/devices.py holds against a CPU

hypothesis.settings.register_profile("tests", deadline=None)  # what an example takes depends on what else is running
hypothesis.settings.load_profile("tests")


TRACED = ("test_cli.py", "test_messages.py", "test_options.py", "test_other_data.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tests that run whole commands those which go furthest, and those of errors, are traced for coverage: to
    trace the same lines in the others as well takes half as long again as to run them."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in TRACED:
            item.add_marker("no_cover")


_LOST_WORKERS: list[object] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """Of a process that ended after its last test, as in its clean-up, xdist says nothing."""
    if error:
        _LOST_WORKERS.append(error)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _LOST_WORKERS and session.exitstatus == 0:
        session.exitstatus = 1


@pytest.fixture(scope="session")
def tolerance() -> dict[torch.dtype, float]:
    """Largest relative error of a round trip through a network, by arithmetic."""
    return {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def trained_looking() -> Callable[[nn.Module], nn.Module]:
    """Gives a fresh network batch-norm statistics and scales that are not 0 and 1, and puts it in eval mode."""

    def shake(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 1.5)
        return model.eval()

    return shake


@st.composite
def _architectures(draw) -> tuple[dict, tuple[int, int]]:
    stages = draw(st.integers(1, 3))
    strides = tuple(draw(st.integers(1, 2)) for _ in range(stages))
    initial_squeeze = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 4))
    squeezed = channels * initial_squeeze**2
    total = initial_squeeze
    for stride in strides:
        total *= stride
    pad = squeezed % 2 == 1 or draw(st.booleans())
    fields = dict(
        input_shape=(channels, total, 2 * total),
        num_classes=draw(st.integers(1, 4)),
        blocks=tuple(draw(st.integers(1, 2)) for _ in range(stages)),
        strides=strides,
        initial_squeeze=initial_squeeze,
        kernel_sizes=draw(st.sampled_from([(1, 3, 1), (3, 3, 3), (3, 1, 5)])),
        bottleneck_ratio=draw(st.sampled_from([4.0, 0.5, (2.0,) * stages])),
        channels=draw(st.integers(squeezed // 2 + 1, squeezed // 2 + 4)) if pad else None,
        squeeze_order=draw(st.sampled_from(["block", "channel"])),
    )
    return fields, (total * draw(st.integers(1, 2)), total * draw(st.integers(1, 2)))


@pytest.fixture(scope="session")
def architectures() -> st.SearchStrategy[tuple[dict, tuple[int, int]]]:
    """Fields of a config that can be built, and an image size for it that need not be its own."""
    return _architectures()


@pytest.fixture(scope="session")
def models() -> dict[str, ModelInfo]:
    """What `list_models` says of each network; to count for it takes seconds."""
    return {info.name: info for info in list_models()}


@pytest.fixture
def bijective_config() -> IRevNetConfig:
    return IRevNetConfig(input_shape=(3, 8, 8), num_classes=5, blocks=(2, 2), strides=(1, 2))


@pytest.fixture
def injective_config() -> IRevNetConfig:
    return IRevNetConfig(
        input_shape=(3, 8, 8), num_classes=5, blocks=(2, 2), strides=(1, 2), initial_squeeze=1, channels=4
    )


@pytest.fixture
def bijective(bijective_config, trained_looking) -> IRevNet:
    return trained_looking(IRevNet(bijective_config).double())


@pytest.fixture
def injective(injective_config, trained_looking) -> IRevNet:
    return trained_looking(IRevNet(injective_config).double())


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Gives a folder of that name to be filled by a function, once for all processes that share the tests: the first
    that needs it fills it, the others wait. Tests that write into it copy it first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, made = shared / name, shared / f"{name}.made"
        with FileLock(shared / f"{name}.lock"):
            if not made.exists():
                folder.mkdir()  # which fails where filling it did
                fill(folder)
                made.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def finished_run(made_once) -> Path:
    """The folder of a run of five epochs on the digits, with every other default: 110 steps."""
    return made_once("digits", _train)


def _train(folder: Path) -> None:
    torch.manual_seed(0)
    settings = RunSettings(model="irevnet-small", data="digits", training=recipe("digits", epochs=5))
    with without_checks_of_types():  # 9,000 times an image is loaded
        assert len(list(new_run(folder, settings).epochs())) == 5


@pytest.fixture(scope="session")
def small_run(made_once) -> Path:
    """The folder of a run of an epoch on three of the digits, of a network of two blocks, with the checkpoints that it
    kept after 0, 3 and all 6 steps."""

    def train(folder: Path) -> None:
        torch.manual_seed(0)
        config = IRevNetConfig(input_shape=(1, 8, 8), num_classes=3, blocks=(1, 1), strides=(1, 2))
        training = recipe("digits", epochs=1)
        settings = RunSettings(
            model="irevnet-small", data="digits", classes=("1", "3", "8"), training=training, keep_every=3
        )
        with pytest.MonkeyPatch.context() as patch, without_checks_of_types():
            patch.setattr(zoo, "small_config", lambda *_: config)
            list(new_run(folder, settings).epochs())

    return made_once("three-digits", train)


@contextmanager
def without_checks_of_types() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Types are not checked, as users have it: for tests of calls whose types others check."""
    with without_checks_of_types():
        yield


@pytest.fixture(autouse=True)
def _types_are_checked_beside_their_source(request) -> Iterator[None]:
    """Tests of whole commands run as users have it, in half the time."""
    with without_checks_of_types() if request.path.parent == Path(__file__).parent else nullcontext():
        yield


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def blank_figures(monkeypatch) -> None:
    """Commands draw nothing into the files of their figures, which takes them longer than all the rest: for tests of
    what else they do. Those in tests/figures look at what is drawn."""
    monkeypatch.setattr(Figure, "savefig", functools.partialmethod(_save_blank, Figure.savefig))


def _save_blank(figure: Figure, save: Callable[..., None], *arguments: Any, **options: Any) -> None:
    save(Figure(figsize=(1, 1)), *arguments, **options)


def _accuracies(dims: list[int], accuracy: list[float]) -> dict[str, np.ndarray]:
    """The fields that both kinds of probes share, of one network."""
    rows = len(dims)
    svm = np.array(accuracy)
    return {
        "networks": np.array(["irevnet-b"]),
        "network_accuracy": np.array([0.77]),
        "network_interval": np.array([[0.7, 0.8]]),
        "restricted_accuracy": np.array([0.85]),
        "restricted_interval": np.array([[0.8, 0.9]]),
        "network": np.zeros(rows, dtype=int),
        "layer": np.array(["block-1", "block-2", "block-5"]),
        "dims": np.array(dims),
        "svm_accuracy": svm,
        "svm_interval": np.stack((svm - 0.1, svm + 0.05), axis=1),
        "nn_accuracy": svm - 0.1,
        "nn_interval": np.stack((svm - 0.2, svm), axis=1),
        "svm_cost": np.array([0.1, 1.0, 0.01]),
        "svm_gap": np.array([1e-5, 2e-5, np.nan]),
        "at_edge": np.array([False, True, False]),
        "cost_grid": np.array([0.01, 0.1, 1.0]),
        "cv_accuracy": np.full((rows, 3), 0.5),
        "held_out_accuracy": np.full((rows, 3), np.nan),
        **ProbeResult.added({"network": np.zeros(rows), "cost_grid": np.zeros(3)}),
        "num_train": np.array(100),
        "num_test": np.array(20),
    }


@pytest.fixture(scope="session")
def probe() -> DepthProbeResult:
    """Blocks 1, 2 and 5 of 5, which see 4, 16 and 16 channels."""
    return DepthProbeResult(
        **_accuracies([4, 16, 16], [0.5, 0.75, 0.9]),
        depth=np.array([1, 2, 5]),
        relative_depth=np.array([0.2, 0.4, 1.0]),
        distance_ratio=np.array([0.9, 0.8, 0.5]),
    )


@pytest.fixture(scope="session")
def inversion() -> InversionResult:
    """Of 9 images and 9 of noise, of which 3 and 2 are pictured; 4 images inverted from blocks 1 and 12."""
    originals = np.random.default_rng(0).uniform(size=(5, 3, 4, 6))
    return InversionResult(
        arithmetic=np.array("float32"),
        depth=np.array(12),
        image_errors=np.array([1e-7, 4e-7, np.nan, 0.0, 2e-7, 1e-7, 1e-7, 1e-7, 1e-7]),
        noise_errors=np.full(9, 2e-7),
        shown=np.array([1, 4, 2, 0, 8]),
        num_image_shown=np.array(3),
        originals=originals,
        reconstructions=originals + 1e-6,
        depths=np.array([1, 12]),
        arithmetics=np.array(["float32", "float16", "exact"]),
        depth_errors=np.array([[[1e-7] * 4, [2e-7, 4e-7, 3e-7, np.nan]], [[1e-3] * 4, [np.inf] * 4], np.zeros((2, 4))]),
        amplification_random=np.array([[2.0, 4.0], [5.0, 7.0]]),
        amplification_largest=np.array([[20.0, 40.0], [50.0, 70.0]]),
        amplification_residual=np.full((2, 2), 1e-4),
    )


@pytest.fixture(scope="session")
def interpolation() -> InterpolationResult:
    """Two lines of three steps on an injective network, of the first of which the middle is known."""
    rng = np.random.default_rng(0)
    return InterpolationResult(
        depth=np.array(4),
        bijective=np.array(False),
        rows_of_grid=np.array(False),
        names=np.array(["cat to dog", "dog to cow"]),
        classes=np.array(["cat", "dog", "cow"]),
        t=np.broadcast_to([1.0, 0.5, 0.0], (2, 2, 3)).copy(),
        images=rng.uniform(-0.5, 1.5, size=(2, 2, 3, 3, 4, 6)).astype(np.float32),
        top_class=np.array([[[0, 1, 1], [1, 1, 2]], [[0, 0, 1], [1, 2, 2]]]),
        probability=np.full((2, 2, 3), 0.75),
        travelled=np.broadcast_to([0.0, 1.0, 3.0], (2, 2, 3)).copy(),
        outside=np.full((2, 2, 3), 0.5),
        residual=np.full((2, 2, 3), 0.2),
        middle_distance=np.array([[0.1, np.nan], [0.3, np.nan]]),
        middle_feature_distance=np.array([[0.4, np.nan], [0.3, np.nan]]),
    )


@pytest.fixture(scope="session")
def geometric() -> Callable[..., Spectrum]:
    """A spectrum of 150 values from 10 on, each the same part of the one before: the first 10 and the last 3 are known,
    the others a density, or without an inverse the last are not; or all are known, by the matrix."""

    def make(last: float = 0.1, method: str = "lanczos", *, inverse: bool = True) -> Spectrum:
        values = np.geomspace(10, last, 150)
        k, l = (10, 3 if inverse else 0) if method == "lanczos" else (150, 0)  # noqa: E741
        middle = values[k : 150 - l]
        volume = np.log(values).sum() + np.array([0.5, -0.5])
        return Spectrum(
            num_outputs=150,
            num_inputs=150,
            method=method,
            largest=values[:k],
            largest_residuals=np.full(k, 1e-4 if method == "lanczos" else np.nan),
            smallest=values[::-1][:l],
            smallest_residuals=np.full(l, 1e-4),
            num_converged=k,
            squared_norm=float((values**2).sum()),
            squared_norm_error=float((values**2).sum() / 100) if method == "lanczos" else 0.0,
            nodes=middle if method == "lanczos" else np.empty(0),
            weights=np.ones((2, len(middle))) if method == "lanczos" else np.empty((1, 0)),
            log_volume=volume if inverse else np.full(2, np.nan),
            log_volume_error=2.0 if inverse else np.nan,
            num_products=100,
            loss_of_orthogonality=1e-7,
        )

    return make


@pytest.fixture(scope="session")
def spectrum_result(geometric) -> SpectrumResult:
    """Of an i-RevNet at two images, and of a ResNet, which has no inverse, at the same."""
    return SpectrumResult.of(
        [geometric(), geometric(0.01), geometric(inverse=False), geometric(0.001, inverse=False)],
        networks=["irevnet-b", "resnet-50"],
        images=["cat", "dog"],
        network=[0, 0, 1, 1],
        layer=["block-100"] * 2 + ["block-16"] * 2,
        depth=[100, 100, 16, 16],
        image=[0, 1, 0, 1],
    )


@pytest.fixture(scope="session")
def spectra_with_directions(geometric) -> SpectrumResult:
    """Of four blocks of one network, at two images of 5 x 10 pixels: log of the singular values is linear in depth, and
    the two most magnified directions of each block are unit vectors, of which the next block has one."""
    depths = [1, 2, 3, 5]

    def around(depth: int, image: int) -> Directions:
        right = np.zeros((2, 2, 150), np.float32)
        for vector in range(2):
            right[0, vector, 10 * image + depths.index(depth) + vector] = 1
            right[1, vector, 100 + vector] = 1  # the same at all depths
        values = np.geomspace(10, 10 / 2**depth, 150)
        return Directions(
            vector_values=np.stack((values[:2], values[:-3:-1])),
            right_vectors=right.reshape(2, 2, 3, 5, 10),
            left_vectors=right,
            vector_residuals=np.full((2, 2, 2), 1e-6),
            pixels=np.full((3, 5, 10), 0.5, np.float32),
            pixel_scale=np.array([0.2, 0.2, 0.2]),
            steps=np.full((2, 2, 2), 3.0),
            feature_changes=np.full((2, 2, 2), 6.0),
        )

    at = [(depth, image) for depth in depths for image in (0, 1)]
    return SpectrumResult.of(
        [geometric(10 / 2**depth, "dense") for depth, _ in at],
        networks=["irevnet-b"],
        images=["cat", "dog"],
        network=[0] * 8,
        layer=[f"block-{depth}" for depth, _ in at],
        depth=[depth for depth, _ in at],
        image=[image for _, image in at],
        directions=[around(*each) for each in at],
    )


@pytest.fixture(scope="session")
def spectra_by_depth(geometric) -> SpectrumResult:
    """Of three blocks of one network, at one image, by the matrix."""
    return SpectrumResult.of(
        [geometric(last, "dense") for last in (5, 1, 0.1)],
        networks=["irevnet-b"],
        images=["cat"],
        network=[0, 0, 0],
        layer=["block-1", "block-2", "block-5"],
        depth=[1, 2, 5],
        image=[0, 0, 0],
    )


@pytest.fixture(scope="session")
def sweep() -> PCASweepResult:
    """Of 1, 10 and all 64 components."""
    fields = {**_accuracies([1, 10, 64], [0.5, 0.895, 0.9]), "layer": np.array(["block-5"] * 3)}
    return PCASweepResult(**fields, explained=np.array([0.3, 0.8, 1.0]))


def _twice(result):
    """The same network again under another name, with five blocks more and without an accuracy of its own."""
    fields = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        shared = value.ndim == 0 or field.name in result.SHARED
        fields[field.name] = value if shared else np.concatenate((value, value))
    fields["network"] = np.repeat([0, 1], len(result.network))
    fields["networks"] = np.array(["irevnet-b", "resnet-50"])
    fields["network_accuracy"] = fields["restricted_accuracy"] = np.array([0.77, np.nan])
    fields["network_interval"] = fields["restricted_interval"] = np.array([[0.7, 0.8], [np.nan, np.nan]])
    if "relative_depth" in fields:
        fields["relative_depth"] = fields["relative_depth"] * np.repeat([1, 0.5], len(result.network))
    return type(result)(**fields)


@pytest.fixture(scope="session")
def probes(probe) -> DepthProbeResult:
    return _twice(probe)


@pytest.fixture(scope="session")
def sweeps(sweep) -> PCASweepResult:
    return _twice(sweep)
