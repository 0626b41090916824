"""Untrusted files: the sizes that a file declares are checked against its own before any memory is allocated.

Nothing here runs code from a file. Errors are `ValueError` and say what is wrong; callers add the name of the file.
"""

import io
import json
import math
import pickle
import pickletools
import re
import reprlib
import types
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
from numpy import ndarray

T = TypeVar("T")

DEEPEST = 64
"""Most levels of nested lists and objects in JSON; this toolkit writes a handful."""


def parse_json(text: str | bytes) -> Any:
    """The content of JSON with at most `DEEPEST` levels.

    >>> parse_json('{"epochs": 2}')
    {'epochs': 2}
    """
    too_deep = f"its lists and objects are nested deeper than {DEEPEST} levels"
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level = [content]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return content
    raise ValueError(too_deep)


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value matches a type hint.

    Lists match tuples and sequences, integers of 64 bits match floats; objects may have more keys than a `TypedDict`.

    >>> fits([1, 2.5], tuple[float, ...]), fits(True, int), fits({"a": "1"}, dict[str, int])
    (True, False, False)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _is_list(value) and len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin in (tuple, list, Sequence):
        return _is_list(value) and all(fits(each, arguments[0]) for each in value)
    if origin in (dict, Mapping):
        return type(value) is dict and all(
            fits(name, arguments[0]) and fits(each, arguments[1]) for name, each in value.items()
        )
    if is_typeddict(hint):
        kinds = get_type_hints(hint)
        return (
            type(value) is dict
            and hint.__required_keys__ <= value.keys()
            and all(fits(value[name], kind) for name, kind in kinds.items() if name in value)
        )
    if type(value) is int:
        return hint in (int, float) and abs(value) < 2**63
    return type(value) is hint or (value is None and hint is types.NoneType)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def build(kind: type[T], content: Any) -> T:
    """A dataclass from plain values by the names of its fields, each of the type of the field.

    Raises `TypeError` for missing or unknown fields, `ValueError` for values of another type, and what `kind` raises.
    """
    if type(content) is not dict:
        raise TypeError(f"found {type(content).__name__} where the fields of {kind.__name__} are expected")
    hints = get_type_hints(kind)
    for name, value in content.items():
        if name in hints and not fits(value, hints[name]):
            raise ValueError(f"{name} is {brief(value)}; expected {_spelled(hints[name])}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})


def brief(value: Any) -> str:
    """The beginning of a value, for an error message.

    >>> brief((1, 2))
    '(1, 2)'
    """
    try:
        text = reprlib.repr(value)
    except ValueError:  # an integer with thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint).replace("typing.", "")


class Arrays:
    """The arrays of an `.npz` file by name, without pickles, as `open_arrays` opens it."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def declared(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of an array, from its header alone."""
        with _as_value_error(), self._archive.open(self._member(name)) as file:
            return _check_header(file, self._member(name).file_size)

    def __getitem__(self, name: str) -> ndarray:
        self.declared(name)
        with _as_value_error(), self._archive.open(self._member(name)) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise ValueError(f"it has no array {name!r}")
        return self._members[name]


@contextmanager
def open_arrays(path: Path, *, compressed: bool = False) -> Iterator[Arrays]:
    """Opens an `.npz` file.

    Args:
        path: path of the file.
        compressed: whether arrays may be compressed, and so larger than the file. The caller then has to check the
            shapes that they declare.
    """
    with open(path, "rb") as file:
        size = path.stat().st_size
        with _as_value_error():
            archive = _open_archive(file, size, compressed=compressed)
        with archive:
            yield Arrays(archive)


def map_array(path: Path) -> ndarray:
    """The array of an `.npy` file as a read-only memory map."""
    with open(path, "rb") as file, _as_value_error():
        _check_header(file, path.stat().st_size)
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _check_header(file: Any, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype in the header of an `.npy` file, whose size has to be exactly what they take."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array has format version {version}; expected (1, 0) or (2, 0)")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.hasobject:
        raise ValueError("an array holds Python objects, which allow_pickle=False refuses")
    longest = max(size, LONGEST_OF_NONE) if 0 in shape else size
    if not all(type(length) is int and 0 <= length <= longest for length in shape):
        raise ValueError(f"an array declares the shape {brief(shape)}, for which the file is too small")
    if kind.itemsize == 0 < math.prod(shape) or file.tell() + math.prod(shape) * kind.itemsize != size:
        raise ValueError(f"an array declares {brief(shape)} of {brief(kind)}, but has another size")
    return shape, kind


LONGEST_OF_NONE = 2**20
"""Most rows or columns of an array without elements, whose file says nothing of how many there are."""


def _open_archive(file: Any, size: int, *, compressed: bool) -> zipfile.ZipFile:
    """A zip file whose members are stored, and no larger than the file together, or deflated where that is allowed."""
    archive = zipfile.ZipFile(file)
    kinds = {info.compress_type for info in archive.infolist()}
    if not kinds <= {zipfile.ZIP_STORED, *([zipfile.ZIP_DEFLATED] if compressed else [])}:
        raise ValueError("its members are compressed; expected uncompressed ones")
    declared = sum(info.file_size for info in archive.infolist())
    if not compressed and declared > size:
        raise ValueError(f"its members declare {declared:,} bytes, but the file has {size:,}")
    return archive


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Turns the many exceptions that a damaged file can raise into one."""
    try:
        yield
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


_GLOBAL = re.compile(
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch(\.cuda)? \w+Storage|torch\.nn\.parameter Parameter|torch (Size|device|(b?float|u?int)\d+|bool)"
)
"""The globals that files of tensors need. Torch would also allow some that allocate any size, such as bytearray."""

_ZIP = b"PK\x03\x04"

LONGEST_PICKLE = 2**24
"""Most bytes of a pickle: enough to name 80,000 tensors, whose values are elsewhere in the file."""


def check_tensors(path: Path) -> None:
    """Checks a file of `torch.save`, a zip file or in the format before torch 1.6, without loading it.

    Raises:
        ValueError: its members declare more bytes than it has, or it is damaged.
        pickle.UnpicklingError: it names a global that no file of tensors needs.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            with _as_value_error(), _open_archive(file, size, compressed=False) as archive:
                infos = [info for info in archive.infolist() if PurePosixPath(info.filename).name == "data.pkl"]
                _check_length(sum(info.file_size for info in infos))
                pickles = [archive.read(info) for info in infos]
            for each in pickles:
                _check_pickle(io.BytesIO(each))
        else:
            file.seek(0)
            for _ in range(5):  # a magic number, a version, the system, the content, the names of its storages
                _check_pickle(file)


def _check_length(length: int) -> None:
    if length > LONGEST_PICKLE:
        raise ValueError(f"it needs more than {LONGEST_PICKLE:,} bytes to name its tensors")


def _check_pickle(file: Any) -> None:
    start = file.tell()
    try:
        for code, argument, position in pickletools.genops(file):
            _check_length(position - start)
            if code.name in ("STACK_GLOBAL", "INST") or (
                code.name == "GLOBAL" and not _GLOBAL.fullmatch(str(argument))
            ):
                raise pickle.UnpicklingError(f"Unsupported global: {argument}")
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
