"""The networks that the paper compares with: RevNet (Gomez et al., 2017) and ResNet (He et al., 2016)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet

from irevnet.models.config import ResNetConfig, RevNetConfig
from irevnet.models.convolution import convolution
from irevnet.models.coupling import Bottleneck

Maps = Float[Tensor, "batch channels height width"]


class RevNetUnit(nn.Module):
    """y = P x + F x~, y~ = P~ x~ + G y: reversible where the projections P, P~ are the identity."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, preactivate: bool):
        super().__init__()
        self.f = Bottleneck(
            in_channels, out_channels, stride=stride, kernel_sizes=(1, 3, 1), ratio=4.0, preactivate=preactivate
        )
        self.g = Bottleneck(out_channels, out_channels, stride=1, kernel_sizes=(1, 3, 1), ratio=4.0)
        changes = stride > 1 or in_channels != out_channels
        self.project = convolution(in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()
        self.project_tilde = convolution(in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Maps, x_tilde: Maps) -> tuple[Tensor, Tensor]:
        y = self.project(x) + self.f(x_tilde)
        y_tilde = self.project_tilde(x_tilde) + self.g(y)
        return y, y_tilde


class RevNet(nn.Module):
    """The reversible residual network; its stem pools and its stages project, so it is not invertible as a whole."""

    def __init__(self, config: RevNetConfig):
        super().__init__()
        self.config = config
        channels = config.stem_shape[0]
        self.stem = _imagenet_stem(config.input_shape[0], 2 * channels)
        units = []
        for count, width, first_stride in zip(config.blocks, config.widths, config.strides):
            for stride in (first_stride,) + (1,) * (count - 1):
                units.append(RevNetUnit(channels, width // 2, stride=stride, preactivate=len(units) > 0))
                channels = width // 2
        self.blocks = nn.ModuleList(units)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.classifier = nn.Linear(2 * channels, config.num_classes)

    def forward(self, images: Tensor) -> Float[Tensor, "batch classes"]:
        """Logits `(n, classes)` of images `(n, c, h, w)`."""
        _check_channels(images, self.config.input_shape[0])
        x, x_tilde = self.stem(images).chunk(2, dim=1)
        for unit in self.blocks:
            x, x_tilde = unit(x, x_tilde)
        phi = torch.cat((x, x_tilde), dim=1)
        return self.classifier(self.norm(phi).relu().mean(dim=(2, 3)))


class ResNet(nn.Module):
    """A residual network of torchvision's blocks, in one list, with a stem for large or for small images."""

    def __init__(self, config: ResNetConfig):
        super().__init__()
        self.config = config
        kind = resnet.Bottleneck if config.block == "bottleneck" else resnet.BasicBlock
        channels = config.stem_shape[0]
        if config.stem == "imagenet":
            self.stem = _imagenet_stem(config.input_shape[0], channels)
        else:
            self.stem = nn.Sequential(*_conv_norm_relu(config.input_shape[0], channels, kernel=3, stride=1))
        blocks = []
        for count, width, first_stride in zip(config.blocks, config.widths, config.strides):
            for stride in (first_stride,) + (1,) * (count - 1):
                shortcut = None
                if stride > 1 or channels != width * kind.expansion:
                    shortcut = nn.Sequential(
                        convolution(channels, width * kind.expansion, 1, stride=stride),
                        nn.BatchNorm2d(width * kind.expansion),
                    )
                blocks.append(kind(channels, width, stride, shortcut))
                channels = width * kind.expansion
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(channels, config.num_classes)
        for module in self.modules():  # torchvision's initialisation
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Float[Tensor, "batch classes"]:
        """Logits `(n, classes)` of images `(n, c, h, w)`."""
        _check_channels(images, self.config.input_shape[0])
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.classifier(x.mean(dim=(2, 3)))


def _conv_norm_relu(in_channels: int, out_channels: int, *, kernel: int, stride: int) -> list[nn.Module]:
    layers = convolution(in_channels, out_channels, kernel, stride=stride), nn.BatchNorm2d(out_channels)
    return [*layers, nn.ReLU(inplace=True)]


def _imagenet_stem(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm_relu(in_channels, out_channels, kernel=7, stride=2), nn.MaxPool2d(3, 2, padding=1))


def _check_channels(images: Tensor, channels: int) -> None:
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(
            f"images of shape {tuple(images.shape)} do not fit; this network takes (batch, {channels}, height, width)"
        )
