"""Files that cannot be read as images: found, skipped, and kept with a run."""

from collections.abc import Mapping
from pathlib import Path

from torch.utils.data import Dataset

from irevnet.data.lazy_images import LEAVE_OUT, ImageFiles
from irevnet.data.loaders import batches
from irevnet.utils import distributed
from irevnet.utils.files import write_json
from irevnet.utils.progress import Track
from irevnet.utils.untrusted import brief, fits, parse_json


def find_unreadable(paths: list[str], workers: int, track: Track) -> dict[str, str]:
    """The files that cannot be read as images, and why. The processes of a group share the reading."""
    loader = batches(_Reasons(paths), 64, part=distributed.part(), workers=workers)
    own = [reason for batch in track(loader, "reading every image") for reason in batch]
    reasons = [reason for part in distributed.gather(own) for reason in part]
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


class _Reasons(Dataset[str]):
    """The reason why each file cannot be read as an image; empty if it can."""

    def __init__(self, paths: list[str]):
        self.images = ImageFiles(paths)

    def __len__(self) -> int:
        return len(self.images.paths)

    def __getitem__(self, index: int) -> str:
        try:
            self.images[index]
        except ValueError as error:
            return str(error).removeprefix(f"{self.images.paths[index]} ").removesuffix(LEAVE_OUT)
        return ""


_SKIPPED = "left-out.json"


def save_skipped(folder: Path, skipped: Mapping[str, str] | None) -> None:
    """Writes the skipped images, and why, to `left-out.json` in a folder; `None` removes an earlier file."""
    if skipped is None:
        (folder / _SKIPPED).unlink(missing_ok=True)
    else:
        write_json(folder / _SKIPPED, dict(skipped))


def read_skipped(folder: Path) -> dict[str, str] | None:
    """The content that `save_skipped` wrote; `None` without a file. Raises `ValueError` for a damaged file."""
    path = folder / _SKIPPED
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes())
        if not fits(content, dict[str, str]):
            raise ValueError(f"found {brief(content)} where names of files and reasons are expected")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return content
