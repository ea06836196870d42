"""Find modules that users' files import by their names of version 0.1 under their present names.

Recorded source files of old workspaces, and files that users wrote for that version, keep working.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

FORMER = {
    "audio_cls.augment": "audio_cls.components.augment",
    "audio_cls.auto": "audio_cls.core.auto",
    "audio_cls.config": "audio_cls.core.config",
    "audio_cls.errors": "audio_cls.core.errors",
    "audio_cls.features": "audio_cls.components.features",
    "audio_cls.losses": "audio_cls.components.losses",
    "audio_cls.models": "audio_cls.components.models",
    "audio_cls.optim": "audio_cls.components.optim",
    "audio_cls.ranking": "audio_cls.metrics.ranking",
    "audio_cls.rng": "audio_cls.core.rng",
    "audio_cls.sampling": "audio_cls.components.sampling",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Give the present module for a former name; both names then stand for one module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        former = next((f for f in FORMER if name == f or name.startswith(f + ".")), None)
        return None if former is None else importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        former = next(f for f in FORMER if spec.name == f or spec.name.startswith(f + "."))
        module = importlib.import_module(FORMER[former] + spec.name.removeprefix(former))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # importlib has just replaced the module's own spec by the former name's.
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Find modules by their former names from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before the one that looks into folders: it would load a second copy
