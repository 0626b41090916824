"""Checks of untrusted files, and the memory that hostile files take."""

import ast
import io
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pytest
import torch

from irevnet import build_model, read_checkpoint, save_checkpoint
from irevnet.checkpoints.checkpoint import Checkpoint
from irevnet.checkpoints.tensor_files import read_weights
from irevnet.codec import read_header
from irevnet.data.transforms import InputTransform
from irevnet.utils import untrusted
from irevnet.utils.untrusted import DEEPEST, brief, build, check_tensors, fits, map_array, open_arrays, parse_json

ROOT = Path(__file__).parents[3]
SAFE = {"torch.load": "weights_only", "np.load": "allow_pickle"}
UNSAFE = re.compile(r"pickle\.(loads?|Unpickler)|pd\.read_pickle|(joblib|yaml)\.load|eval|exec")


def unsafe_calls(text: str) -> list[str]:
    """Calls that may run code from a file."""
    found = []
    for call in ast.walk(ast.parse(text)):
        if isinstance(call, ast.Call):
            name = ast.unparse(call.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if UNSAFE.fullmatch(name) or (name in SAFE and given.get(SAFE[name]) != str(name == "torch.load")):
                found.append(f"{name} in line {call.lineno}")
    return found


def test_nothing_is_loaded_that_may_run_code():
    rooms = (ROOT / room for room in ("irevnet", "analysis", "figures", "benchmarks"))
    texts = {path: path.read_text(encoding="utf-8") for room in rooms for path in room.rglob("*.py")}
    texts[ROOT / "cli.py"] = (ROOT / "cli.py").read_text(encoding="utf-8")
    assert {path: found for path, text in texts.items() if (found := unsafe_calls(text))} == {}
    assert sum(f"{name}(" in text for text in texts.values() for name in SAFE) >= 4  # under these names
    for unsafe in ("torch.load(x)", "np.load(x, allow_pickle=True)", "torch.load(x, weights_only=False)", "eval(x)"):
        assert len(unsafe_calls(unsafe)) == 1


def test_json_that_is_nested_too_deeply_is_refused():
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)
    for levels in (DEEPEST + 1, 100_000):
        with pytest.raises(ValueError, match="its lists and objects are nested deeper than 64 levels"):
            parse_json("[" * levels + "]" * levels)


class Kind(TypedDict, total=False):
    name: str
    numbers: list[int]


def test_plain_values_are_held_against_type_hints():
    for hint, (fitting, others) in {
        int: ([1], [True, 10**30, None]),
        float: ([1], [10**30, "1"]),
        int | None: ([None], ["1"]),
        tuple[int, int]: ([[1, 2]], [[1], [1, "a"]]),
        list[int]: ([[], [1]], [[1, "a"], 1]),
        Literal["a", 1]: (["a", 1], [True]),
        dict[str, list[int]]: ([{"a": [1]}], [{1: [1]}, {"a": 1}]),
        Kind: ([{"name": "a", "further": 1}], [{"numbers": 3}, []]),
        Any: ([object()], []),
    }.items():
        assert all(fits(value, hint) for value in fitting), hint
        assert not any(fits(value, hint) for value in others), hint


def test_dataclasses_are_built_from_matching_types_only():
    fields = {"channels": 3, "image_size": [8, 8], "mean": [0.5], "std": [0.5]}
    assert build(InputTransform, fields) == InputTransform(channels=3, image_size=(8, 8), mean=(0.5,), std=(0.5,))
    for content, error, message in (
        (fields | {"image_size": [8]}, ValueError, r"image_size is \[8\]; expected tuple\[int, int\]"),
        (fields | {"channels": "3"}, ValueError, "channels is '3'; expected int"),
        (fields | {"further": 3}, TypeError, "unexpected keyword argument 'further'"),
        ([fields], TypeError, "found list where the fields of InputTransform are expected"),
    ):
        with pytest.raises(error, match=message):
            build(InputTransform, content)


def test_a_message_stays_short():
    assert len(brief(list(range(10**5)))) <= 60
    shared: list = []
    for _ in range(100):
        shared = [shared, shared]  # 2^100 of them, spelled out
    assert len(brief(shared)) <= 60
    assert brief(10**5000) == "a int" or len(brief(10**5000)) <= 60


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def header(shape: tuple, kind: str = "<f8", version: int = 1) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
    return out.getvalue().replace(b"NUMPY\x01", b"NUMPY" + bytes([version]), 1)


def archive(path: Path, kind: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", kind) as out:
        for name, content in members.items():
            out.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((10**10,)), r"declares the shape \(10000000000,\), for which the file is too small"),
        (header((-1,)), "for which the file is too small"),
        (header((0, 2**20 + 1)), "for which the file is too small"),
        (header((3,)) + bytes(8), r"declares \(3,\) of dtype\('float64'\), but has another size"),
        (header((3,)) + bytes(32), "but has another size"),
        (header((100,), "<U0"), "but has another size"),
        (header((1,), "|O") + bytes(8), "holds Python objects, which allow_pickle=False refuses"),
        (header((1,), version=3) + bytes(8), r"has format version \(3, 0\); expected \(1, 0\) or \(2, 0\)"),
        (b"nothing", "magic"),
        (b"", "EOF"),
    ],
)
def test_an_array_has_the_size_that_it_declares(tmp_path, content, message):
    path = archive(tmp_path / "x.npz", a=content)
    with open_arrays(path) as arrays, pytest.raises(ValueError, match=message):
        arrays["a"]
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        map_array(tmp_path / "x.npy")


def test_arrays_come_back_as_they_were(tmp_path):
    values = np.arange(6, dtype=np.int32).reshape(2, 3)
    none = npy(np.zeros((0, 1000)))  # longer than the file
    path = archive(tmp_path / "x.npz", a=npy(values), b=npy(np.array("text")), none=none)
    with open_arrays(path) as arrays:
        assert arrays.names == ["a", "b", "none"]
        assert arrays["none"].shape == (0, 1000)
        assert arrays.declared("a") == ((2, 3), np.int32)
        np.testing.assert_array_equal(arrays["a"], values)
        assert arrays["b"].item() == "text"
        with pytest.raises(ValueError, match="it has no array 'c'"):
            arrays["c"]
    np.save(tmp_path / "x.npy", values)
    mapped = map_array(tmp_path / "x.npy")
    np.testing.assert_array_equal(mapped, values)
    assert not mapped.flags.writeable


def test_compressed_arrays_are_refused_unless_they_are_expected(tmp_path):
    path = archive(tmp_path / "x.npz", zipfile.ZIP_DEFLATED, a=npy(np.zeros(10**5)))
    with pytest.raises(ValueError, match="its members are compressed"), open_arrays(path):
        pass
    with open_arrays(path, compressed=True) as arrays:
        assert arrays["a"].shape == (10**5,)
    path = archive(tmp_path / "y.npz", zipfile.ZIP_BZIP2, a=npy(np.zeros(10**5)))
    with pytest.raises(ValueError, match="its members are compressed"), open_arrays(path, compressed=True):
        pass


def test_overlapping_zip_members_are_refused(tmp_path):
    path = archive(tmp_path / "x.npz", a=npy(np.zeros(100)))
    whole = path.read_bytes()
    directory, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entries, tail = 200 * whole[directory:end], bytearray(whole[end:])
    tail[8:16] = 2 * (200).to_bytes(2, "little") + len(entries).to_bytes(4, "little")
    path.write_bytes(whole[:directory] + entries + tail)
    message = r"its members declare 185,600 bytes, but the file has \d\d,\d\d\d"
    with pytest.raises(ValueError, match=message), open_arrays(path):
        pass


class Named:
    """An object whose pickle names something to call."""

    def __init__(self, *what: Any):
        self.what = what

    def __reduce__(self):
        return self.what[0], self.what[1:]


@pytest.mark.parametrize("zipped", [True, False])
def test_globals_that_allocate_memory_are_refused(tmp_path, zipped):
    for what in ((bytearray, 10**9), (torch.FloatTensor, 10**9), (torch.Tensor, 3), (print, "x")):
        torch.save({"state_dict": {}, "x": Named(*what)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
            check_tensors(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds pickled Python objects"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_too_many_tensor_names_are_refused_early(tmp_path, monkeypatch, zipped):
    tensors = {f"{n:020}": torch.zeros(1) for n in range(100)}
    torch.save(tensors, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    check_tensors(tmp_path / "x.pt")
    monkeypatch.setattr(untrusted, "LONGEST_PICKLE", 5000)
    with pytest.raises(ValueError, match="it needs more than 5,000 bytes to name its tensors"):
        check_tensors(tmp_path / "x.pt")
    torch.save(dict(list(tensors.items())[:10]), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    check_tensors(tmp_path / "x.pt")


def saved(folder: Path, **changes: Any) -> Path:
    """A checkpoint with changed content."""
    model = build_model("irevnet-small", num_classes=3, image_size=8, in_channels=1).eval()
    transform = InputTransform(channels=1, image_size=(8, 8))
    made = Checkpoint(model=model, transform=transform, data="digits", classes=("a", "b", "c"), metrics={})
    save_checkpoint(folder / "x.pt", made)
    content = torch.load(folder / "x.pt", weights_only=True)
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    torch.save(content, folder / "x.pt")
    return folder / "x.pt"


def deflated(path: Path) -> Path:
    torch.save({"state_dict": {"a": torch.zeros(4 * 10**7)}}, path)
    with zipfile.ZipFile(path) as whole:
        members = {info.filename: whole.read(info) for info in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for name, content in members.items():
            small.writestr(name, content)
    return path


def repeated(path: Path) -> Path:
    """An ImageNet network whose weights repeat a single number."""
    with torch.device("meta"):
        state = build_model("irevnet-a").state_dict()
    torch.save({"state_dict": {name: torch.zeros(()).expand(each.shape) for name, each in state.items()}}, path)
    return path


def expanding(path: Path) -> Path:
    header = npy(np.zeros(2 * 10**8, dtype=np.uint8))
    return archive(path, zipfile.ZIP_DEFLATED, header=header)


BOMBS = {
    "classes": (lambda at: saved(at, config={"num_classes": 10**8}, classes=[]), read_checkpoint, "has shape"),
    "blocks": (lambda at: saved(at, config={"blocks": (9000, 1, 1)}), read_checkpoint, "9,002 blocks need more than"),
    "more": (lambda at: saved(at, config={"blocks": (10**9, 1, 1)}), read_checkpoint, "expected at most 10,000"),
    "resize": (lambda at: saved(at, transform={"resize": 10**9}), read_checkpoint, "pixels"),
    "deflated": (lambda at: deflated(at / "x.pt"), read_checkpoint, "its members are compressed"),
    "repeated": (lambda at: repeated(at / "x.pt"), read_weights, r"its tensors declare \d+,\d+,\d+ bytes, but the"),
    "npz": (lambda at: expanding(at / "x.npz"), read_header, r"its header is \(200000000,\) of uint8"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path, bomb):
    write, read, message = BOMBS[bomb]
    path = write(tmp_path)
    assert path.stat().st_size < 2**23
    peak()
    before = peak()
    with pytest.raises(ValueError, match=message):
        read(path)
    assert peak() - before < 100, bomb


def peak() -> float:
    """Peak memory since the last call, in MiB."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
