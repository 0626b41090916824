"""Results of the studies, in memory and on disk: arrays (`.npz`), a tidy table (`.csv`) and provenance (`.json`)."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

import numpy as np
import pandas as pd
from jaxtyping import jaxtyped

from analysis.results.findings import Finding, FindingContext
from irevnet.utils.files import as_json, is_unused, write_together
from irevnet.utils.untrusted import open_arrays


@dataclass(frozen=True, eq=False)
class Result(ABC):
    """What every study returns: a frozen dataclass of NumPy arrays with a name, a table and headline numbers."""

    STUDY: ClassVar[str]
    SPLITS: ClassVar[tuple[Literal["train", "test"], ...]] = ("test",)
    """Splits of the data whose images it was computed from."""
    INDICES: ClassVar[Mapping[str, str]] = {}
    """Names of fields that hold indices, each with the name of the field that they index."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The result as a tidy table, one observation a row."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The headline numbers, as plain values for JSON."""

    def findings(self, context: FindingContext) -> list[Finding]:
        """What the paper found, beside what this result says; nothing where the paper has no such study."""
        return []

    @classmethod
    def added(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The fields that results lack which were saved before there were such, from those that they have."""
        return {}

    @property
    def own_accuracy(self) -> float | None:
        """Top-1 accuracy of the one network that the result is of, on the test images, where the study measures it."""
        return None

    def save(self, folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
        """Writes STUDY.npz, STUDY.csv and STUDY.json together; the last one marks the result as complete.

        Raises `FileExistsError` if the folder holds files but no earlier result of this study.
        """
        check_folder(folder, self.STUDY)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, table, mark = (folder / f"{self.STUDY}.{suffix}" for suffix in ("npz", "csv", "json"))
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        text = as_json({"study": self.STUDY, "summary": self.summary(), "provenance": dict(provenance)})
        write_together(
            {
                arrays: lambda path: np.savez(path, **fields),
                table: lambda path: self.table().to_csv(path, index=False),
                mark: lambda path: path.write_text(text, encoding="utf-8"),
            }
        )
        return [arrays, table, mark]

    @classmethod
    def load(cls, folder: Path):
        """Reads a saved result.

        Raises `FileNotFoundError` if the folder holds no complete result of this study, `ValueError` if its arrays are
        damaged or not this study's.
        """
        path = folder / f"{cls.STUDY}.npz"
        if not path.is_file() or not (folder / f"{cls.STUDY}.json").is_file():
            raise FileNotFoundError(f"{folder} holds no complete result of {cls.STUDY}; run the study first")
        hints = get_type_hints(cls)
        try:
            with open_arrays(path) as arrays:
                names = [field.name for field in dataclasses.fields(cls)]
                found = {name: arrays[name] for name in names if name in arrays.names}
                found = {**cls.added(found), **found}
                fields = {name: found[name] if name in found else arrays[name] for name in names}
            with jaxtyped("context"):  # in which a length by name is the same for all
                for name, array in fields.items():
                    if not isinstance(array, hints[name]):
                        raise ValueError(
                            f"its {name} is {array.dtype} of shape {array.shape}; expected {hints[name].__name__}"
                        )
                    if array.size and hints[name].__name__.startswith("Shaped"):
                        _check_names(name, array)
            result = cls(**fields)
            result.check()
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged, or not a result of {cls.STUDY}: {error}") from error
        return result

    def check(self) -> None:
        """Raises `ValueError` where an index is out of range."""
        for name, indexed in self.INDICES.items():
            indices, count = getattr(self, name), len(getattr(self, indexed))
            if indices.size and not 0 <= indices.min() <= indices.max() < count:
                found = f"{indices.min()} to {indices.max()}"
                raise ValueError(f"its {name} goes from {found}; expected indices of its {count} {indexed}")


@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """A result of one or several networks or runs; results of one each can be joined."""

    NAMES: ClassVar[str] = "networks"
    """Name of the field that holds the names of the networks or runs."""
    NUMBERS: ClassVar[tuple[str, ...]] = ("network",)
    """Names of the fields that hold, for each row, the index of its network or run."""
    SHARED: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that have to be equal for results to be joined."""

    def check(self) -> None:
        super().check()
        indices, count = getattr(self, self.NUMBERS[0]), len(getattr(self, self.NAMES))
        if count == 0 or not np.array_equal(np.unique(indices), np.arange(count)):
            raise ValueError(f"its {self.NUMBERS[0]} is expected to have rows for each of its {count} {self.NAMES}")

    @property
    def subjects(self) -> list[str]:
        """Names of the networks or runs."""
        return getattr(self, self.NAMES).tolist()

    @classmethod
    def join(cls, results: Sequence[Any], names: Sequence[str]):
        """Joins results into one, of all their networks or runs under these names.

        Raises `ValueError` where they differ in a field of `SHARED`.
        """
        first = results[0]
        for name in cls.SHARED:
            if not all(np.array_equal(getattr(each, name), getattr(first, name)) for each in results):
                raise ValueError(f"results that differ in {name} cannot be joined")
        separate = [field.name for field in dataclasses.fields(cls) if field.name not in cls.SHARED]
        joined = {name: np.concatenate([getattr(each, name) for each in results]) for name in separate}
        starts = np.cumsum([0, *(len(each.subjects) for each in results[:-1])])
        for name in cls.NUMBERS:
            joined[name] = np.concatenate([getattr(each, name) + start for each, start in zip(results, starts)])
        shared = {name: getattr(first, name) for name in cls.SHARED}
        return cls(**{**joined, cls.NAMES: np.array(names)}, **shared)


def _check_names(field: str, array: np.ndarray) -> None:
    """Raises `ValueError` unless an array holds text that can be written."""
    if array.dtype.kind != "U":
        raise ValueError(f"its {field} is {array.dtype}; expected text")
    "".join(array.ravel().tolist()).encode()


def finite_or_none(value: float) -> float | None:
    """A number for JSON, which has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def check_folder(folder: Path, study: str) -> None:
    """Raises `FileExistsError` if the folder holds files, but no earlier result of that study."""
    for each in (folder, *folder.parents):
        if each.exists() and not each.is_dir():
            raise FileExistsError(f"{each} is a file; name a folder for the results")
    if not is_unused(folder) and not any(folder.glob(f"{study}.*")):
        raise FileExistsError(f"{folder} holds other files; name a folder that is new, empty or of an earlier {study}")
