"""Encoding of images as features of a network in exact arithmetic, in a file, and decoding to identical images.

A file of features is a NumPy archive (`.npz`). `header`, JSON in bytes, has the network, the lattice, the depth, and
name and size of each image; `phi_0`, `phi_1`, ... are the features of each image, `(c, h, w)`, int32, in units of the
lattice's spacing.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from irevnet.checkpoints.checkpoint import weights_sha256
from irevnet.data.transforms import InputTransform, read_image
from irevnet.models.exact import Lattice
from irevnet.models.irevnet import IRevNet
from irevnet.utils.files import atomic_write
from irevnet.utils.lookup import names_apart
from irevnet.utils.modules import device_of
from irevnet.utils.progress import Track, no_progress
from irevnet.utils.untrusted import Arrays, brief, build, open_arrays, parse_json

_FORMAT = "irevnet-toolkit features"

LONGEST_NAME = 200
"""Most bytes of an image's name, so that its file's temporary name is not too long for most systems."""

_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Most pixels of an image that Pillow reads."""

_LONGEST_HEADER = 2**24
"""Most bytes of a header; 100,000 images take less."""


@dataclass(frozen=True)
class EncodedImage:
    """An image in a file of features.

    Attributes:
        name: name of its file, without folder and extension.
        channels: number of channels, 1 if it is grey, 3 if it is coloured.
        height: height in pixels.
        width: width in pixels.

    Raises `ValueError` for names that are unsafe as file names, and for impossible sizes.
    """

    name: str
    channels: int
    height: int
    width: int

    def __post_init__(self):
        plain = self.name.isprintable() and not self.name.startswith(".") and not set(self.name) & set("/\\:")
        if not plain or not 0 < len(self.name.encode()) <= LONGEST_NAME:
            raise ValueError(
                f"{brief(self.name)} is no name for an image; expected at most {LONGEST_NAME} bytes of printable "
                "characters, without slash or colon, and no dot at the beginning"
            )
        if self.channels not in (1, 3) or min(self.height, self.width) < 1:
            raise ValueError(
                f"image {brief(self.name)} cannot have size {self.channels} x {self.height} x {self.width}"
            )


@dataclass(frozen=True)
class Header:
    """The header of a file of features.

    Attributes:
        weights_sha256: SHA-256 of the weights of the network in exact arithmetic.
        bits: number of bits of the lattice.
        depth: number of the block whose output the features are.
        images: images in the order of the features.
    """

    weights_sha256: str
    bits: int
    depth: int
    images: tuple[EncodedImage, ...]


@torch.inference_mode()
def encode(
    model: IRevNet,
    transform: InputTransform,
    images: Sequence[Path],
    out: Path,
    *,
    depth: int | None = None,
    track: Track = no_progress,
) -> Header:
    """Writes the features of images, each at its own size, to a file.

    An image is normalised as the network's images are, but neither resized nor cropped: its right and its lower edge
    are repeated up to the next size that the network takes.

    Args:
        model: network in exact arithmetic.
        transform: transform of the network's images.
        images: paths of the images.
        out: path of the file to write.
        depth: depth of the features; by default the last.
        track: wrapper of the loop over images, to show its progress.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: an image is missing.
        ValueError: an image cannot be read, or a part of it would be lost.
    """
    if out.exists():
        raise FileExistsError(f"{out} already exists; name another file")
    depth = model.config.num_blocks if depth is None else depth
    names = names_apart([path.stem for path in images], [f"{path.stem}-{row}" for row, path in enumerate(images)])
    entries = tuple(_look_at(path, name, transform) for path, name in zip(images, names))
    header = Header(weights_sha256(model), _lattice(model).bits, depth, entries)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        text = json.dumps({"format": _FORMAT, **asdict(header)})
        _add(archive, "header", np.frombuffer(text.encode(), dtype=np.uint8))
        for index, path in enumerate(track(images, "encoding")):
            _add(archive, f"phi_{index}", _to_features(model, transform, read_image(path), depth))
    return header


@torch.inference_mode()
def decode(
    model: IRevNet, transform: InputTransform, file: Path, folder: Path, *, track: Track = no_progress
) -> list[Path]:
    """Writes the images of a file of features into a folder, as PNG, and returns their paths.

    Raises:
        FileExistsError: a file with the name of an image exists.
        FileNotFoundError: there is no such file of features.
        ValueError: the file is damaged, or its features are those of another network.
    """
    header = read_header(file)
    own = weights_sha256(model)
    if (header.weights_sha256, header.bits) != (own, _lattice(model).bits):
        raise ValueError(
            f"the features in {file} are of another network (weights {header.weights_sha256[:12]} in exact arithmetic, "
            f"not {own[:12]}); give the checkpoint that they were encoded with"
        )
    paths = [folder / f"{entry.name}.png" for entry in header.images]
    if existing := [path for path in paths if path.exists()]:
        raise FileExistsError(f"{existing[0]} already exists; name another folder")
    model.check_depth(header.depth)
    with open_arrays(file, compressed=True) as arrays:
        for index, entry in enumerate(header.images):
            with _features_of(entry, file):
                _check_declared(arrays, index, entry, model, header.depth)
        folder.mkdir(parents=True, exist_ok=True)
        for index, entry in enumerate(track(header.images, "decoding")):
            with _features_of(entry, file):
                units = torch.from_numpy(arrays[f"phi_{index}"])
            pixels = _to_pixels(model, transform, units, entry, header.depth)
            with atomic_write(paths[index]) as temporary:
                Image.fromarray(pixels).save(temporary)
    return paths


def read_header(file: Path) -> Header:
    """The header of a file of features.

    Raises `FileNotFoundError` if there is no such file, `ValueError` if it is no file of features.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of features {file}")
    try:
        with open_arrays(file, compressed=True) as arrays:
            shape, kind = arrays.declared("header")
            if kind != np.uint8 or len(shape) != 1 or shape[0] > _LONGEST_HEADER:
                raise ValueError(f"its header is {shape} of {kind}")
            content = parse_json(arrays["header"].tobytes())
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise ValueError("its header is not that of a file of features")
        images = tuple(build(EncodedImage, entry) for entry in content.pop("images", ()))
        if len({image.name for image in images}) < len(images):
            raise ValueError("two of its images have the same name")
        return replace(build(Header, {**content, "images": []}), images=images)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged, or not a file that 'irevnet encode' wrote: {error}") from error


def _lattice(model: IRevNet) -> Lattice:
    if model.lattice is None:
        raise ValueError("encoding needs a network in exact arithmetic; pass model.exact()")
    return model.lattice


def _look_at(path: Path, name: str, transform: InputTransform) -> EncodedImage:
    """Size and channels of an image. Raises `ValueError` if a part of it would be lost."""
    channels, height, width = read_image(path).shape
    with Image.open(path) as file:
        lost = {
            f"what its mode {file.mode} has beyond 8 bits of grey or RGB": file.mode not in ("1", "L", "P", "RGB"),
            "its transparency": "transparency" in file.info,
            "all frames but its first": getattr(file, "n_frames", 1) > 1,
            "its colours, in a network for grey images,": channels > transform.channels,
        }
    for part, is_lost in lost.items():
        if is_lost:
            raise ValueError(f"{path}: {part} would be lost; convert it to a plain image first")
    return EncodedImage(name=name, channels=channels, height=height, width=width)


def _to_features(
    model: IRevNet, transform: InputTransform, pixels: UInt8[Tensor, "c h w"], depth: int
) -> Int32[ndarray, "channels height width"]:
    device, stride = device_of(model), model.config.total_stride
    inputs = transform.normalise(transform.to_channels(pixels.double() / 255))[None]
    below, right = (-size % stride for size in inputs.shape[2:])
    phi = model.features(pad(inputs, (0, right, 0, below), mode="replicate").to(device), depth)
    return (phi[0] / _lattice(model).spacing).to(torch.int32).cpu().numpy()


def _to_pixels(
    model: IRevNet, transform: InputTransform, units: Tensor, entry: EncodedImage, depth: int
) -> UInt8[ndarray, "..."]:
    """The image of these features in Pillow's layout: `(h, w)` if it is grey, else `(h, w, 3)`."""
    phi = units.to(device_of(model)).double() * _lattice(model).spacing
    pixels = transform.to_pixels(model.inverse(phi[None], depth)[0])
    pixels = pixels[: entry.channels, : entry.height, : entry.width].permute(1, 2, 0)
    pixels = (255 * pixels).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels[..., 0] if entry.channels == 1 else pixels


def _add(archive: zipfile.ZipFile, name: str, array: ndarray) -> None:
    """Adds an array to an open archive, so that no more than one is in memory."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


@contextmanager
def _features_of(entry: EncodedImage, file: Path) -> Iterator[None]:
    """Adds the name of the file and of the image to errors about features."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file} is damaged: the features of {brief(entry.name)} cannot be read: {error}") from error


def _check_declared(arrays: Arrays, index: int, entry: EncodedImage, model: IRevNet, depth: int) -> None:
    """Raises `ValueError` unless the features of an image are declared as `encode` would have written them."""
    if entry.channels > model.config.input_shape[0]:
        raise ValueError("the image is coloured, but the network takes grey images")
    if entry.height * entry.width > _MOST_PIXELS:
        raise ValueError(f"the image has {entry.height} x {entry.width} pixels; expected at most {_MOST_PIXELS:,}")
    stride = model.config.total_stride
    size = (-(-entry.height // stride) * stride, -(-entry.width // stride) * stride)
    expected = model.config.feature_shape(depth, size)
    shape, kind = arrays.declared(f"phi_{index}")
    if (shape, kind) != (expected, np.int32):
        raise ValueError(f"they are {shape} of {kind}; expected {expected} of int32")
