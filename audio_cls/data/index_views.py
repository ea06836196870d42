"""The index of a view: some clips of a corpus, with other labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

__all__ = ["view_index"]


def view_index(
    index: dict[str, Any],
    clips: Sequence[int],
    classes: tuple[str, ...],
    labels: Sequence[Sequence[int]],
    task: str,
    key: str,
) -> dict[str, Any]:
    """Return the index of the given clips with other labels; arguments as of `Corpus.view`."""
    columns = {
        name: None if values is None else [values[i] for i in clips] for name, values in index["columns"].items()
    }
    columns["labels"] = [list(of) for of in labels]
    place = {old: new for new, old in enumerate(clips)}
    lists = {
        fold: {side: [place[i] for i in rows if i in place] for side, rows in sides.items()}
        for fold, sides in index.get("lists", {}).items()
    }
    families = {name: found for name, found in index.get("families", {}).items() if name in classes}
    return {
        **index,
        "task": task,
        "classes": list(classes),
        "n": len(clips),
        "digest": hashlib.sha256(f"{index['digest']}|view:{key}".encode()).hexdigest(),
        **({"extra": {name: [v[i] for i in clips] for name, v in index["extra"].items()}} if "extra" in index else {}),
        **({"lists": lists} if lists else {}),
        **({"families": families} if "families" in index else {}),
        "columns": columns,
    }
