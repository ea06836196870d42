"""Loading a user's Python files: studies, ablations, experiments, components of their own."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from audio_cls.core import former_names
from audio_cls.core.errors import UserError
from audio_cls.core.trust import ensure_trusted

__all__ = [
    "declaration",
    "ensure_trusted",
    "imported_sources",
    "load_file",
    "load_files",
    "loaded_modules",
    "reach_run",
]

T = TypeVar("T")
PREFIX = "audio_cls_user_"  # of the names under which the files of users stand in sys.modules
LARGEST_SOURCE = 200_000  # characters
MOST_SOURCES = 200  # files
REACHED = "__audio_cls_reached__"  # in a loaded module: what it would have run
_loading: list[tuple[ModuleType, str]] = []  # the files being loaded, and the name that is wanted of each
_NEVER_SOURCES = sys.stdlib_module_names | {"audio_cls", "__main__"}


class _RunReached(BaseException):
    """Ends the loading of a script where it would begin to train."""


def reach_run(what: object = None) -> bool:
    """Tell the loader that a script begins to train: called first by whatever a script may call to do so.

    A script that runs itself returns False from here. One that is loaded for what it declares (in a worker process, or to find
    a model's class) is loaded as far as here, so that it needs no `if __name__ == "__main__"`; True where a name that is wanted of
    it stands further below: the caller then does nothing.
    """
    if not _loading:
        return False
    module, wanted = _loading[-1]
    if wanted and not hasattr(module, wanted.partition(".")[0]):
        return True
    setattr(module, REACHED, what)
    raise _RunReached


def load_file(path: Path, wanted: str = "") -> ModuleType:
    """Import a Python file by its path, once per process, as far as it begins to train (`reach_run`) once `wanted` is defined. Its folder is importable, so that it can use a neighbour, but is
    searched last: a neighbour never takes the place of an installed package or of a module of the standard library.

    Raises:
        UserError: when there is no such file, it came with an archive and is not trusted (`ensure_trusted`), or it fails: with
            the error, its line and what was on it.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f" In {path.parent}: {', '.join(near)}." if near else ""
        raise UserError(f"no file {str(path)!r}.{hint}")
    if path.suffix != ".py":
        raise UserError(f"{path}: expected a Python file (.py)")
    path = path.resolve()
    ensure_trusted(path)
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    former_names.install()
    _loading.append((module, wanted))
    try:
        with contextlib.suppress(_RunReached):
            spec.loader.exec_module(module)
    except UserError as error:
        del sys.modules[name]
        raise UserError(f"{path}{_line(error, path)}: {error}") from None
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    finally:
        _loading.pop()
    return module


def loaded_modules() -> list[ModuleType]:
    """Return the files that were loaded in this process, in order."""
    return [module for name, module in list(sys.modules.items()) if name.startswith(PREFIX)]


def load_files(paths: Sequence[Path]) -> list[ModuleType]:
    return [load_file(path) for path in paths]


def imported_sources(file: Path) -> dict[str, str]:
    """Return the text of a user's file and of the modules that it imported from its own folder, by path relative to
    that folder.

    A module counts when its name says that it was found there: `helpers` as `helpers.py`, `nets.small` as `nets/small.py`. What
    merely is below the folder (a virtual environment, this package) does not. A source that cannot be read is left out.
    """
    file = file.resolve()
    folder = file.parent
    found = [file]
    here: dict[str, bool] = {}  # whether the folder has something of that name
    for name, module in sorted(sys.modules.items()):
        top, place = name.partition(".")[0], getattr(module, "__file__", None)
        if top in _NEVER_SOURCES or not isinstance(place, str):
            continue
        if top not in here:
            here[top] = (folder / top).is_dir() or (folder / f"{top}.py").is_file()
        if here[top] and os.path.isabs(place):  # torch has modules that give a relative place, which says nothing
            stem = folder.joinpath(*name.split("."))
            path = Path(os.path.realpath(place))
            if path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
                found.append(path)
    out = {}
    for path in found[:MOST_SOURCES]:
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            if len(text) <= LARGEST_SOURCE:
                out[path.relative_to(folder).as_posix()] = text
    return out


def declaration(path: Path, kind: type[T]) -> T:
    """Return the one object of a kind that a file declares at its top level.

    Raises:
        UserError: when there is none, or more than one.
    """
    module = load_file(path)
    found: dict[str, Any] = {name: value for name, value in vars(module).items() if isinstance(value, kind)}
    distinct = {id(v): v for v in found.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    preferred = kind.__name__.upper()
    if preferred in found:
        return found[preferred]
    names = ", ".join(sorted(found)) or "none"
    raise UserError(
        f"{path}: expected one {kind.__name__} at the top level ({preferred} = {kind.__name__}(...)), found {names}"
    )


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f", line {lines[-1]}" if lines else ""
