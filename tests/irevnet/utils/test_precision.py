"""`irevnet.utils.precision`: float32 that is float32, whatever a user has set."""

from collections.abc import Iterator

import pytest
import torch

from irevnet.utils.precision import tensor_float32, true_float32

BACKENDS = torch.backends
NEWER = hasattr(BACKENDS, "fp32_precision")  # from PyTorch 2.9 on
LIBRARIES = [BACKENDS, BACKENDS.cudnn, BACKENDS.mkldnn] if NEWER else []
OF_GPUS = [BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn] if NEWER else []
OF_CPUS = [BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn] if NEWER else []


def older() -> tuple[str, bool] | None:
    """The older settings, which cannot be read where the newer ones say otherwise."""
    try:
        return torch.get_float32_matmul_precision(), BACKENDS.cudnn.allow_tf32
    except RuntimeError:
        return None


def settings() -> tuple[list[str], tuple[str, bool] | None]:
    return [each.fp32_precision for each in OF_GPUS + OF_CPUS], older()


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    saved = [(each, each.fp32_precision) for each in LIBRARIES + OF_GPUS + OF_CPUS]
    yield
    for each, value in saved:
        each.fp32_precision = "none" if each in LIBRARIES else value
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    for each, value in saved:
        each.fp32_precision = value


def all_high() -> None:
    torch.set_float32_matmul_precision("high")


def all_medium() -> None:
    torch.set_float32_matmul_precision("medium")


def no_convolutions() -> None:
    BACKENDS.cudnn.allow_tf32 = False


def everything_newer() -> None:
    BACKENDS.fp32_precision = "tf32"


def operations_newer() -> None:
    BACKENDS.cudnn.conv.fp32_precision = "tf32"
    BACKENDS.cuda.matmul.fp32_precision = "tf32"


def library_of_cpus_newer() -> None:
    BACKENDS.mkldnn.fp32_precision = "bf16"


def operations_of_cpus_newer() -> None:
    BACKENDS.mkldnn.matmul.fp32_precision = "bf16"
    BACKENDS.mkldnn.conv.fp32_precision = "bf16"


OLDER_CHOICES = [lambda: None, all_high, all_medium, no_convolutions]
NEWER_CHOICES = [everything_newer, operations_newer, library_of_cpus_newer, operations_of_cpus_newer]


@pytest.mark.parametrize("choose", OLDER_CHOICES + (NEWER_CHOICES if NEWER else []), ids=lambda each: each.__name__)
def test_every_operation_is_set_and_all_settings_are_restored(choose):
    choose()
    before = settings()
    for context, matmul, gpu in ((true_float32, "highest", "ieee"), (tensor_float32, "high", "tf32")):
        with context():
            assert [each.fp32_precision for each in OF_GPUS] == [gpu] * len(OF_GPUS)
            assert [each.fp32_precision for each in OF_CPUS] == ["ieee"] * len(OF_CPUS)
            if before[1] is not None:
                assert older() == (matmul, gpu == "tf32")
            with true_float32():
                pass
            assert [each.fp32_precision for each in OF_GPUS] == [gpu] * len(OF_GPUS)
        assert settings() == before


if NEWER:

    def test_an_operation_follows_its_library_afterwards_as_before():
        def followed() -> list[str]:
            found = []
            for value in ("ieee", "tf32"):
                BACKENDS.fp32_precision = value
                found += [each.fp32_precision for each in OF_GPUS + OF_CPUS]
            BACKENDS.fp32_precision = "none"
            return found

        before = followed()
        with true_float32():
            pass
        assert followed() == before


def test_products_are_those_of_float32_whatever_is_set(generator):
    """On a CPU that computes with bfloat16, "medium" is off by 1e-3."""
    a, b = torch.randn(2, 512, 512, generator=generator)
    exact = a.double() @ b.double()
    all_medium()
    with true_float32():
        error = (a @ b - exact).abs().max()
    assert error < 512 * torch.finfo(torch.float32).eps * exact.abs().max()
