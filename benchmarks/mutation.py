"""Changes of files of the kinds that `fuzz.py` feeds to the toolkit, each drawn from a generator of its own."""

import copy
import io
import json
import os
import random
import re
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

TEXT = ("<script>alert(1)</script>", '"onmouseover=x', "../../x", "/etc/passwd", "a\0b", "\ud800", "{{7*7}}", "$", "")
NUMBERS = (0, -1, 1, 2, 3, 7, 255, 2**31, 2**63, 10**9, 10**30, 0.5, 1e308, float("nan"), float("inf"))
VALUES = (*TEXT, *NUMBERS, None, True, False, [], {}, [1], ["a"], [[1]], {"a": 1}, [10**6] * 4)


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 64, 1000))
    if not data:
        return bytes(length)
    match rng.randrange(8):
        case 0:
            flipped = bytearray(data)
            flipped[at % len(data)] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + length :]
        case 3:
            return data[:at] + rng.randbytes(length) + data[at + length :]
        case 4:
            other = rng.randrange(len(data))
            return data[:at] + data[other : other + length] + data[at:]
        case 5:  # a field of a length or an offset
            number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1))
            size = max(rng.choice((1, 2, 4, 8)), (number.bit_length() + 7) // 8)
            return data[:at] + number.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]
        case 6:
            return data + data[at:]
        case _:
            return change_text(data, rng)


def change_text(data: bytes, rng: random.Random) -> bytes:
    """A number, or what stands between separators, is another."""
    places = list(re.finditer(rng.choice((rb"-?\d+", rb"[^,\n:\[\]{} ]+")), data))
    if not places:
        return data + b"1"
    place = rng.choice(places)
    value = str(rng.choice((*NUMBERS, *TEXT, "[" * 5000, "9" * 5000, "a," * 3000)))
    return data[: place.start()] + value.encode("utf-8", "surrogatepass") + data[place.end() :]


def change_tree(tree: Any, rng: random.Random, values: tuple) -> Any:
    """One value of nested dictionaries and lists is replaced, removed, doubled or added."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        match rng.randrange(8):
            case 0:
                del tree[key]
            case 1 if isinstance(tree, dict):
                tree[rng.choice((*TEXT, 1))] = tree[key]
            case 1:
                tree.insert(key, copy.copy(tree[key]))
            case _:
                tree[key] = change_tree(tree[key], rng, values)
        return tree
    if isinstance(tree, tuple) and tree and rng.random() < 0.5:
        return tuple(change_tree(list(tree), rng, values))
    return copy.copy(rng.choice(values))


def change_json(data: bytes, rng: random.Random) -> bytes:
    tree = change_tree(json.loads(data), rng, VALUES)
    return json.dumps(tree, default=str).encode("utf-8", "surrogatepass")


def change_zip(data: bytes, rng: random.Random, change: Callable[[bytes, random.Random], bytes]) -> bytes:
    """A member changed, renamed, left out or doubled; all are written anew, and sometimes compressed."""
    members = unzip(data)
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(10):
        case 0:
            members.pop(at)
        case 1:
            members[at] = (rng.choice((*TEXT[2:4], members[0][0], "x.npy")), content)
        case 2:
            members.append((name, change(content, rng)))
        case _:
            members[at] = (name, change(content, rng))
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    return zipped(members, kind)


def unzip(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(members: Iterable[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


KINDS = ("f4", "f8", "i8", "i4", "u1", "?", "c8", "U3", "U0", "S2", "O", "M8[s]", "f2", "V4", "f4,i4")
SHAPES = ((), (0,), (1,), (3,), (1000,), (2, 2), (0, 5), (3, 0, 2), (1, 3, 4, 4), (2, 2, 2, 2, 2))


def change_array(data: bytes, rng: random.Random) -> bytes:
    """Of a `.npy` file the header, a number, the shape or the kind."""
    out = io.BytesIO()
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError):
        return change_bytes(data, rng)
    if array.size > 10**6:  # of things that take no room, which are written one by one
        return change_bytes(data, rng)
    match rng.randrange(8):
        case 0:
            return change_bytes(data, rng)
        case 1:  # a header that promises
            shape = tuple(rng.choice((0, 1, 3, 10**9, 2**31, 2**63, 10**18, -1)) for _ in range(rng.randrange(1, 4)))
            header = {"descr": rng.choice(KINDS), "fortran_order": rng.random() < 0.5, "shape": shape}
            np.lib.format.write_array_header_2_0(out, header)
            return out.getvalue() + data[128:]
        case 2:
            end = data.index(b"\n") if b"\n" in data else len(data)
            return data[:10] + change_text(data[10:end], rng) + data[end:]
        case 3:
            array = array.reshape(-1)[: rng.randrange(array.size + 1)]
        case 4:
            array = np.zeros(rng.choice(SHAPES), dtype=rng.choice(KINDS))
        case 5:
            array = array.reshape(rng.choice(((-1,), (1, -1), (*array.shape, 1))))
        case 6 if array.dtype.kind in "fiu?" and array.size:
            value = rng.choice([each for each in NUMBERS if array.dtype.kind == "f" or abs(each) < 2**62])
            array = array.copy()
            with np.errstate(all="ignore"):
                array.reshape(-1)[rng.randrange(array.size)] = np.array(value).astype(array.dtype)
        case 6 if array.size:
            array = np.full(array.shape, rng.choice(TEXT))
        case _ if array.dtype.kind in "fiu?":
            array = array.astype(rng.choice(("f4", "f8", "i8", "i4", "u1", "?", "c16", "U8")))
    np.save(out, array)
    return out.getvalue()


def change_header(data: bytes, rng: random.Random) -> bytes:
    """Of a file of features, what its header tells."""
    members = dict(unzip(data))
    text = change_json(np.load(io.BytesIO(members["header.npy"]), allow_pickle=False).tobytes(), rng)
    header = io.BytesIO()
    np.save(header, np.frombuffer(text, dtype=np.uint8))
    members["header.npy"] = header.getvalue()
    return zipped(members.items())


class Called:
    """Names something to call in a pickle."""

    def __init__(self, *what: Any):
        self.what = what

    def __reduce__(self) -> Any:
        return self.what[0], self.what[1:]

    def __copy__(self) -> "Called":  # which would call it
        return self


def change_tensors(data: bytes, rng: random.Random) -> bytes:
    """Of a file of `torch.save`, its content."""
    if b"bytearray" in data:  # which would be made here
        return change_bytes(data, rng)
    content = torch.load(io.BytesIO(data), weights_only=True)
    dense = torch.rand(3, 2)
    odd = (
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(1).expand(2, 2),
        dense.to_sparse(),
        dense.to(torch.complex64),
        dense.half(),
        torch.empty(2, device="meta"),
        torch.tensor(1),
        torch.full((2,), torch.nan),
        torch.zeros(0),
        torch.zeros(3, 0),
        dense.int(),
        Called(bytearray, 10**9),
        Called(os.mkdir, "called"),
    )
    content = change_tree(content, rng, (*VALUES, *odd))
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=rng.random() < 0.8)
    return out.getvalue()


def whole(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    """That change, or at times one of bytes."""
    return lambda data, rng: (change if rng.random() < 0.75 else change_bytes)(data, rng)


change_tensor_file = whole(
    lambda data, rng: change_tensors(data, rng) if rng.random() < 0.7 else change_zip(data, rng, change_bytes)
)
change_npz = whole(lambda data, rng: change_zip(data, rng, change_array))
change_features = whole(
    lambda data, rng: change_header(data, rng) if rng.random() < 0.5 else change_zip(data, rng, change_array)
)
