"""Studies declared by a program: what a worker process needs to declare the same study again.

The declaration travels as JSON; of the program's file only the space is taken, by its name.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.loading import load_file
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.study.declaration import PrunerConfig, SamplerConfig, Study

__all__ = ["describe", "find_file", "rebuild"]


def describe(study: Study) -> dict[str, Any]:
    """Return a study's declaration as plain JSON, the space by its name in its file."""
    return {
        "name": study.name,
        "base": study.base.to_dict(),
        "space": getattr(study.space, "__qualname__", ""),
        "metric": study.metric,
        "direction": study.direction,
        "sampler": study.sampler.to_dict(),
        "pruner": study.pruner.to_dict(),
    }


def rebuild(file: Path, declaration: Mapping[str, Any]) -> Study:
    """Return the study that `describe` described, its space from a file.

    Raises:
        UserError: for a file that fails, or that has no such function.
    """
    from audio_cls.experiment import Experiment

    name = str(declaration["space"])
    module = load_file(file, wanted=name)
    try:
        space: Callable[..., dict[str, Any]] = functools.reduce(getattr, name.split("."), module)  # type: ignore[assignment]
    except AttributeError:
        raise UserError(
            f"{file}: no function {name!r} above the first line that trains: the space of the study {declaration['name']!r}"
        ) from None
    return Study(
        declaration["name"],
        Experiment.parse(declaration["base"], "base"),
        space,
        declaration["metric"],
        declaration["direction"],
        SamplerConfig.parse(declaration["sampler"], "sampler"),
        PrunerConfig.parse(declaration["pruner"], "pruner"),
    )


def find_file(study: Study, workspace: Workspace, workers: int) -> Path:
    """Return the Python file from which a worker process can take a study's space. Where there is none and none is needed (one
    worker, in this process): a file with the declaration, which goes into the record.

    Raises:
        UserError: for a space that other processes cannot find, with several workers.
    """
    space = study.space
    name = getattr(space, "__qualname__", "<object>")
    place = getattr(sys.modules.get(getattr(space, "__module__", "")), "__file__", None)
    file = Path(place).resolve() if place else None
    if file is not None and file.suffix == ".py" and file.is_file() and "<" not in name:
        return file
    if workers > 1:
        why = (
            "is not defined at the top level of its file"
            if file is not None
            else "was typed into a notebook or a shell"
        )
        raise UserError(
            f"study {study.name!r}: workers={workers} are processes that load the space from a file, and {name} {why}. "
            f"Put it into one (in a notebook: %%writefile {study.name}_space.py as the cell's first line, then "
            f"from {study.name}_space import space), or take workers=1"
        )
    declared = workspace.root / ".declared" / f"{study.name}.json"
    atomic_write(declared, json.dumps(describe(study), indent=1))
    return declared
