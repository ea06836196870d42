"""A package's face without its cost: names that are imported when they are first used.

A room's `__init__` imports its face for type checkers alone, and takes the rest from here:

    if TYPE_CHECKING:
        from audio_cls.queue.options import QueueOptions as QueueOptions

    __getattr__, __dir__, __all__ = face(__name__, __file__)

so that `audio_cls.queue.QueueOptions` is there, is typed, and loading another module of the room loads nothing more.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["face"]


def face(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package, of the names that its `file` imports under TYPE_CHECKING."""
    homes = _type_checking_imports(Path(file).read_text(encoding="utf-8"))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *homes}), sorted(homes)


def _type_checking_imports(source: str) -> dict[str, str]:
    """Return the module of each name that is imported under `if TYPE_CHECKING`."""
    blocks = [n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
