"""Classes of a user's own parts and the files that declare them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from audio_cls.core.config import Component
from audio_cls.core.loading import imported_sources, loaded_modules
from audio_cls.core.workspace import atomic_write

__all__ = ["Source", "all_parts", "entry_of", "is_own", "part_name", "parts_of", "sha256", "source_at", "write_folder"]


@dataclass(frozen=True)
class Source:
    """A Python file that declared parts, as it was when it ran.

    texts: the file and the neighbours that it imported, by path relative to its folder; `main` is the file itself.
    parts: what it declared, such as `model tiny`.
    """

    file: Path
    main: str
    texts: dict[str, str]
    parts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the files' names and contents."""
        described = {"main": self.main, "files": {name: sha256(text) for name, text in sorted(self.texts.items())}}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def parts_of(value: Any) -> Iterator[Component]:
    """Yield a component and every component below it."""
    if isinstance(value, Component):
        yield value
        for name in type(value).model_fields:
            yield from parts_of(getattr(value, name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from parts_of(item)


def part_name(cls: type[Component]) -> str:
    """Return a part's name, such as `model tiny`."""
    family = cls._family.__name__.lower() if cls._family else ""
    return f"{family} {cls.kind}"


def is_own(cls: type[Component]) -> bool:
    """Return whether a class is a part of the user's own."""
    return bool(cls.kind) and cls.__module__.partition(".")[0] != "audio_cls"


def all_parts(cls: type[Component] = Component) -> Iterator[type[Component]]:
    """Yield the members of every family that is loaded."""
    for sub in cls.__subclasses__():
        if sub.is_family():
            yield from sub.members().values()
        yield from all_parts(sub)


def _file_of(module: ModuleType | None) -> Path | None:
    place = getattr(module, "__file__", None)
    path = Path(place).resolve() if place else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def entry_of(cls: type[Component]) -> Path | None:
    """Return the file to load so that a class is declared: the one that was given to a command and brought it, else
    its own.
    """
    own = _file_of(sys.modules.get(cls.__module__))
    for module in loaded_modules():
        entry = _file_of(module)
        if entry is None:
            continue
        if own == entry or any(value is cls for value in vars(module).values()):
            return entry
        if own is not None and own.is_relative_to(entry.parent) and _relative(own, entry) in imported_sources(entry):
            return entry
    return own


def _relative(path: Path, entry: Path) -> str:
    return PurePosixPath(path.relative_to(entry.parent).as_posix()).as_posix()


def source_at(entry: Path) -> Source:
    """Return a file as it is now, with the neighbours that it imported and the parts that they declare."""
    texts = imported_sources(entry)
    files = {entry.parent / name for name in texts}
    declared = {
        part_name(cls) for cls in all_parts() if is_own(cls) and _file_of(sys.modules.get(cls.__module__)) in files
    }
    return Source(entry, entry.name, texts, tuple(sorted(declared)))


def sha256(text: str) -> str:
    """Return the SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def write_folder(folder: Path, texts: dict[str, str]) -> None:
    """Write a folder of texts at once: it is there as a whole or not at all, whoever else writes it."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        for name, text in texts.items():
            atomic_write(temporary / name, text)
        os.rename(temporary, folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
