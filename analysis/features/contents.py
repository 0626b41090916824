"""Which images a data set holds, by their contents, which are read no more often than they change."""

from typing import TypedDict

from analysis.cache import Cache
from irevnet.data.images import LabelledImages
from irevnet.utils.progress import Track, no_progress


class _Digest(TypedDict):
    sha256: str


_READ: dict[str, str] = {}
"""Digests of contents by signature, of this process."""


def contents_sha256(images: LabelledImages, cache: Cache, name: str, track: Track = no_progress) -> str:
    """SHA-256 of the contents of images (`LabelledImages.sha256`).

    All files are read, but for those of a set that was read before and of which no file has been written to since, by
    its sizes, times and places on the disk (`LabelledImages.signature`).

    Args:
        images: the set.
        cache: cache of the digest, for other processes.
        name: name of the set in that cache.
        track: shows the progress of the reading.
    """
    signature = images.signature()
    if signature is None:
        return images.sha256(track)

    def digest() -> dict[str, str]:
        return {"sha256": _READ.get(signature) or images.sha256(track)}

    _READ[signature] = cache.get(name, digest, _Digest, signature=signature)["sha256"]
    return _READ[signature]
