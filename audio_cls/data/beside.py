"""Findings about a corpus that take a while, kept in a file beside its samples.

Such a file is no part of the corpus: it does not enter the digest, is not exported, and is computed again where it is missing,
damaged or of another corpus.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audio_cls.core.workspace import atomic_write

__all__ = ["kept_beside", "read_beside", "remove_outdated"]

_KINDS = ("identical", "near")


def kept_beside(directory: Path, kind: str, digest: str, version: int, compute: Callable[[], Any]) -> Any:
    """Return a finding (plain JSON) about the corpus with a digest: the one that is kept, else computed and kept where the
    folder can be written to.

    Args:
        kind: "identical" or "near".
        version: of the method; findings of another version are computed again.
    """
    found = read_beside(directory, kind, digest, version)
    if found is None:
        found = compute()
        text = json.dumps({"version": version, "digest": digest, "found": found}, separators=(",", ":"))
        with contextlib.suppress(OSError):  # a folder that cannot be written to
            atomic_write(_path(directory, kind, digest), f"{zlib.crc32(text.encode())}\n{text}")
    return found


def read_beside(directory: Path, kind: str, digest: str, version: int) -> Any | None:
    """Return a finding that is kept beside a corpus; None if there is none that is whole and of this version."""
    try:
        checksum, text = _path(directory, kind, digest).read_text(encoding="utf-8").split("\n", 1)
        if int(checksum) != zlib.crc32(text.encode()):
            return None
        content = json.loads(text)
        return content["found"] if (content["version"], content["digest"]) == (version, digest) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_outdated(directory: Path, digest: str) -> None:
    """Remove what is kept of an earlier state of the corpus in this folder."""
    for kind in _KINDS:
        for path in directory.glob(f"{kind}-*.json"):
            if path != _path(directory, kind, digest):
                with contextlib.suppress(OSError):
                    path.unlink()


def _path(directory: Path, kind: str, digest: str) -> Path:
    return directory / f"{kind}-{digest[:16]}.json"
