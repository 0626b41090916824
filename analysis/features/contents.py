"""Which images a data set holds, by their contents, which are read no more often than they change."""

from pathlib import Path
from typing import TypedDict

from irevnet.data.images import LabelledImages
from irevnet.utils.files import write_json
from irevnet.utils.progress import Track, no_progress
from irevnet.utils.untrusted import fits, parse_json


class _Kept(TypedDict):
    signature: str
    sha256: str


_READ: dict[str, str] = {}
"""Digests of contents by signature, of this process."""


def contents_sha256(images: LabelledImages, kept: Path, track: Track = no_progress) -> str:
    """Identifies images by their contents (`LabelledImages.sha256`).

    All files are read, but for those of a set that was read before and of which no file has been written to since, by
    its sizes, times and places on the disk (`LabelledImages.signature`).

    Args:
        images: the set.
        kept: a file for the digest, in a folder of its own below one that may not be there yet; then it is kept by this
            process alone.
        track: shows how far the reading is.
    """
    signature = images.signature()
    if signature is None:
        return images.sha256(track)
    digest = _READ.get(signature) or _read(kept, signature) or images.sha256(track)
    _READ[signature] = digest
    if kept.parent.parent.is_dir() and _read(kept, signature) is None:
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, {"signature": signature, "sha256": digest})
    return digest


def _read(kept: Path, signature: str) -> str | None:
    """The digest that was kept under this signature; what is damaged is none."""
    try:
        content = parse_json(kept.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content["sha256"] if fits(content, _Kept) and content["signature"] == signature else None
