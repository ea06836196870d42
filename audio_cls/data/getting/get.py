"""`get`: a published data set into a folder, downloaded, checked, joined and unpacked; interrupted, the same call goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.data.getting.catalogue import Archive, DataSet
from audio_cls.data.getting.fetching import fetch
from audio_cls.data.getting.unpacking import unpack

__all__ = ["get"]

Progress = Callable[[int, int, str], None]
_ARCHIVES = ".archives"


def get(data_set: DataSet, folder: Path, progress: Progress, *, keep: bool = False) -> Path:
    """Download and unpack a data set. Returns the folder for `data prepare`.

    Archives lie in `folder/.archives` until they are unpacked; what is done is not done again.

    Args:
        keep: leave the archives there.

    Raises:
        UserError: as by `fetch` and `unpack`, and where `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: there is a file of this name")
    store = folder / _ARCHIVES
    store.mkdir(parents=True, exist_ok=True)
    for archive in data_set.archives:
        done = store / f"{archive.name}.done"
        if done.exists():
            continue
        pieces = [*archive.parts, archive]
        for piece in pieces:
            fetch(piece.url, store / piece.name, piece.checksum, progress)
        unpack(store / archive.name, folder, progress, [store / part.name for part in archive.parts])
        done.write_text(archive.checksum + "\n", encoding="utf-8")
        if not keep:
            _remove(store, pieces)
    return folder if data_set.folder == "." else folder / data_set.folder


def _remove(store: Path, pieces: list[Archive]) -> None:
    for piece in pieces:
        (store / piece.name).unlink(missing_ok=True)
