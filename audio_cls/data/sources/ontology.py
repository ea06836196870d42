"""The AudioSet ontology (`ontology.json`): classes and their top-level families.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events" (ICASSP 2017). A class may have
several parents, and so several families.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from audio_cls.core.errors import UserError

__all__ = ["Ontology", "families_of", "read_ontology"]


@dataclass(frozen=True)
class Ontology:
    """Nodes by machine id: their names and their parents."""

    names: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]

    def roots(self, node: str) -> tuple[str, ...]:
        """Return the top-level ancestors of a node, in the order of the file; itself if it has no parent."""
        seen, waiting = {node}, [node]
        while waiting:
            for parent in self.parents.get(waiting.pop(), ()):
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
        return tuple(mid for mid in self.names if mid in seen and not self.parents.get(mid))


def read_ontology(path: Path) -> Ontology:
    """Read a list of nodes with id, name and child_ids.

    Raises:
        UserError: not such a list, or a child that is not in it, by node.
    """
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
        names = {str(node["id"]): str(node["name"]) for node in nodes}
        parents: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            for child in node["child_ids"]:
                if child not in names:
                    raise UserError(
                        f"{path}: node {node['id']!r} ({node['name']}) names the child {child!r}, which is not there"
                    )
                parents[child].append(node["id"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not an ontology (a list of nodes with id, name, child_ids): {error}") from None
    return Ontology(names, {child: tuple(of) for child, of in parents.items()})


def families_of(ids: Mapping[str, str], ontology: Ontology, path: Path) -> dict[str, tuple[str, ...]]:
    """Return class -> names of its families, for classes with these machine ids.

    Raises:
        UserError: a class that the ontology at `path` does not know.
    """
    missing = [f"{name} ({mid})" for name, mid in ids.items() if mid not in ontology.names]
    if missing:
        raise UserError(f"{path}: {len(missing)} classes are not in this ontology: {', '.join(missing[:5])}")
    return {name: tuple(ontology.names[root] for root in ontology.roots(mid)) for name, mid in ids.items()}
