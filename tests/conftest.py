"""What several tests share. Numerical tests run in float64 unless they are about float32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from irevnet import IRevNet, IRevNetConfig
from irevnet.recipes import RECIPES
from irevnet.runs import new_run
from irevnet.settings import RunSettings


@pytest.fixture(scope="session")
def tolerance() -> dict[torch.dtype, float]:
    """Largest relative error of a round trip through a network, by arithmetic."""
    return {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


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
def finished_run(tmp_path_factory) -> Path:
    """The folder of a run on the digits with every default; tests that write into it copy it first."""
    torch.manual_seed(0)
    settings = RunSettings(model="irevnet-small", data="digits", training=RECIPES["digits"])
    run = new_run(tmp_path_factory.mktemp("runs") / "digits", settings)
    assert len(list(run.epochs())) == 20
    return run.folder
