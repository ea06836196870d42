"""A study in one file: a plain tar with checksums. No pickle, no compression (weights do not compress).

    study.json                         direction, attributes and every trial (see `portable`)
    checkpoints/<root>/<number>/...    safetensors; the furthest of each configuration
    mlflow/<run id>/run.json, artifacts/...
    corpora/<name>/...                 only when asked for
    weights/<SHA-256>                  files of pretrained weights that its experiments begin from
    manifest.json                      last: versions, and size and SHA-256 of every file above

The manifest at the end makes a file that was cut short known as such. What is read is written below a folder of its own,
checked against the manifest, and only then used.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from audio_cls.core.disk import is_disk_full
from audio_cls.core.errors import UserError
from audio_cls.study.transfer.archive_schema import check_manifest

__all__ = ["FORMAT", "ArchiveWriter", "read_archive", "read_json"]

FORMAT = 1
MANIFEST = "manifest.json"
PARTS = ("study.json", "checkpoints", "mlflow", "corpora", "weights", MANIFEST)
LARGEST_JSON = 500_000_000  # bytes
CHUNK = 1 << 20


class ArchiveWriter:
    """Writes an archive beside its place and moves it there whole; on an error nothing is left.

    with ArchiveWriter(path) as archive:
        archive.text("study.json", text)
        archive.file("checkpoints/...", open_file)
        archive.close(about)
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise UserError(f"{self.path}: expected the name of a file in a folder that exists")
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        self._files: dict[str, list[Any]] = {}

    def __enter__(self) -> ArchiveWriter:
        self._out = open(self._temporary, "wb")
        self._tar = tarfile.open(fileobj=self._out, mode="w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()
        self._temporary.unlink(missing_ok=True)

    def text(self, name: str, text: str) -> None:
        self.file(name, io.BytesIO(text.encode()))

    def file(self, name: str, source: BinaryIO) -> None:
        """All of an open file, as it is now; that its name is given to another one meanwhile does not matter."""
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        hashed = _Hashed(source)
        self._tar.addfile(member, hashed)
        self._files[name] = [size, hashed.digest.hexdigest()]

    def close(self, about: Mapping[str, Any]) -> int:
        """Add the manifest and put the archive in its place; its size in bytes."""
        manifest = {"audio_cls": "study archive", "format": FORMAT, **about, "files": self._files}
        self.text(MANIFEST, json.dumps(manifest, indent=1))
        self._tar.close()
        self._out.flush()
        os.fsync(self._out.fileno())
        size = self._out.tell()
        os.replace(self._temporary, self.path)
        return size


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def read_archive(path: Path, into: Path) -> dict[str, Any]:
    """Write what an archive holds below `into` (an empty folder of our own), checked; its manifest.

    Names are taken only from the fixed parts of an archive, members only as plain files: nothing is written outside `into`.

    Raises:
        UserError: for a file that is no archive, is damaged or cut short, holds what no archive of ours holds, was written by
            a newer version, or is larger than the room that is left.
    """
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}")
    size, free = path.stat().st_size, shutil.disk_usage(into).free
    if size * 1.02 + 10_000_000 > free:
        raise UserError(f"{path} needs {size / 1e6:.0f} MB in {into.parent}, where {free / 1e6:.0f} MB are free")
    found: dict[str, list[Any]] = {}
    last = ""
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                name = _checked(path, member, found)
                source = tar.extractfile(member)
                assert source is not None
                found[name] = [member.size, _write(source, into / name, member.size)]
                last = name
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
        if is_disk_full(error):
            raise
        if not found:
            raise UserError(f"{path}: no archive of a study, or its beginning is damaged ({error})") from None
        raise UserError(f"{path}: damaged or cut short after {last} ({error}); nothing was imported") from None
    if last != MANIFEST:
        raise UserError(f"{path}: cut short: its manifest, the last part, is missing; nothing was imported")
    manifest = read_json(into / MANIFEST, path)
    if manifest.get("audio_cls") != "study archive":
        raise UserError(f"{path}: a tar file, but no archive of a study")
    version = manifest.get("format")
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path}: manifest.json is damaged (format {version!r}); nothing was imported")
    if version > FORMAT:
        raise UserError(f"{path}: written by a newer version of audio_cls (format {version}, known: {FORMAT})")
    check_manifest(manifest, f"{path}: manifest.json")
    found.pop(MANIFEST)
    listed = manifest.get("files", {})
    for name in sorted(found.keys() | listed.keys()):
        if found.get(name) != listed.get(name):
            what = "is missing" if name not in found else "is not listed" if name not in listed else "is damaged"
            raise UserError(f"{path}: {name} {what} (checksums differ from the manifest); nothing was imported")
    if "study.json" not in found:
        raise UserError(f"{path}: study.json is missing; nothing was imported")
    return manifest


def _checked(path: Path, member: tarfile.TarInfo, found: Mapping[str, Any]) -> str:
    """Return a member's name, once it is certain that it may be written."""
    name = member.name
    parts = name.split("/")
    if (
        len(name) > 1000
        or not name.isprintable()  # no control characters, no bytes that are not UTF-8
        or "\\" in name
        or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
        or parts[0] not in PARTS
    ):
        raise UserError(f"{path}: refused: it holds {name!r}, which no archive of a study does; nothing was imported")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise UserError(
            f"{path}: refused: {name} is a link or another thing that is no plain file; nothing was imported"
        )
    if name in found:
        raise UserError(f"{path}: refused: {name} is there twice; nothing was imported")
    if name in (MANIFEST, "study.json") and member.size > LARGEST_JSON:
        raise UserError(f"{path}: refused: {name} has {member.size} bytes; nothing was imported")
    return name


def _write(source: Any, target: Path, size: int) -> str:
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as out:
        while data := source.read(CHUNK):
            digest.update(data)
            out.write(data)
        if out.tell() != size:
            raise tarfile.ReadError(f"{out.tell()} of {size} bytes")
    return digest.hexdigest()


def read_json(file: Path, archive: Path) -> dict[str, Any]:
    """Read one JSON file of an unpacked archive.

    Raises:
        UserError: for what is no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise UserError(f"{archive}: {file.name} is nested too deep; nothing was imported") from None
    except ValueError as error:
        raise UserError(f"{archive}: {file.name} is damaged ({error}); nothing was imported") from None
    if not isinstance(value, dict):
        raise UserError(f"{archive}: {file.name} is damaged; nothing was imported")
    return value
