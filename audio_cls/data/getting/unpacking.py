"""Unpack archives that were received: no path leaves the folder, no links, no more than a bound, split ZIP archives joined."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from audio_cls.core.errors import UserError
from audio_cls.data.getting.split_zip import open_split_zip

__all__ = ["unpack"]

Progress = Callable[[int, int, str], None]
_BLOCK = 1 << 20
_GROWTH = 20  # bytes unpacked for a byte of the archive; published audio has 1 to 4
_AT_LEAST = 1 << 30
_WORK = ".unpacking"


def unpack(archive: Path, folder: Path, progress: Progress, parts: Sequence[Path] = ()) -> None:
    """Unpack a .zip, .tar.gz or .tar archive into `folder`; any other file is copied. Files get their names when all are whole.

    Args:
        parts: the other parts of a split ZIP archive, the first first; `archive` is its last.

    Raises:
        UserError: not an archive, a path that leaves the folder, a link or device, an encrypted or damaged member, or more data
            than any archive of this size should hold.
    """
    work = folder / _WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    size = sum(path.stat().st_size for path in (archive, *parts))
    bound, written = max(_AT_LEAST, _GROWTH * size), 0
    try:
        for name, total, read in _members(archive, parts):
            target = _safe(work, name, archive)
            if read is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            written += _write(target, read, bound - written, f"{archive}: {name!r}")
            progress(written, max(total, written), archive.name)
        _settle(work, folder, archive)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{archive}: the archive cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _members(archive: Path, parts: Sequence[Path]) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Yield (name, bytes in all, reader) for each member; None for the reader of a folder."""
    if archive.suffix == ".zip":
        with open_split_zip([*parts, archive]) if parts else zipfile.ZipFile(archive) as file:
            total = sum(info.file_size for info in file.infolist())
            for info in file.infolist():
                if (info.external_attr >> 16) & 0o170000 == 0o120000:
                    raise UserError(f"{archive}: {info.filename!r} is a link: nothing was unpacked")
                if info.is_dir():
                    yield info.filename, total, None
                else:
                    with file.open(info) as reader:
                        yield info.filename, total, reader
    elif archive.name.endswith((".tar.gz", ".tgz", ".tar")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive}: {member.name!r} is a link or a device: nothing was unpacked")
                yield member.name, 0, tar.extractfile(member) if member.isfile() else None
    else:
        with open(archive, "rb") as plain:
            yield archive.name, archive.stat().st_size, plain


def _safe(folder: Path, name: str, archive: Path) -> Path:
    """Return the path of a member below `folder`; refuses a name that leads elsewhere."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise UserError(f"{archive}: the member {name!r} leads out of the folder: nothing was unpacked")
    return folder.joinpath(*(part for part in parts if part not in ("", ".")))


def _write(target: Path, read: IO[bytes], bound: int, what: str) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with open(target, "xb") as file:
            while block := read.read(_BLOCK):
                written += len(block)
                if written > bound:
                    raise UserError(
                        f"{what}: the archive holds far more data than one of its size should: nothing was unpacked"
                    )
                file.write(block)
    except FileExistsError:
        raise UserError(
            f"{what} is there twice, or its name differs from another's in case only and this file system ignores case"
        ) from None
    return written


def _settle(work: Path, folder: Path, archive: Path) -> None:
    """Move what was unpacked to its place; files of an earlier archive or attempt are replaced."""
    for path, _, names in os.walk(work):
        place = folder / Path(path).relative_to(work)
        if place.is_symlink():
            raise UserError(f"{archive}: {place} is a link: remove it first")
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(Path(path) / name, place / name)
