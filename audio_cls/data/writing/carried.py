"""What a layout cannot hold of a corpus."""

from __future__ import annotations

from collections.abc import Container

from audio_cls.data.corpus import Corpus

__all__ = ["not_carried"]


def not_carried(corpus: Corpus, held: Container[str]) -> str:
    """Return a sentence about what of a corpus a layout does not hold; empty if it holds all.

    Args:
        held: which of "folds", "splits", "groups", "lists", "families" and "columns" it holds.
    """
    there = {
        "folds": bool((corpus.folds >= 0).any()),
        "splits": any(corpus.splits),
        "groups": any(group is not None for group in corpus.groups),
        "lists": bool(corpus.lists),
        "families": bool(corpus.families),
        "columns": bool(corpus.extra),
    }
    words = {
        "lists": "folds that are lists of clips",
        "families": "families of classes",
        "columns": f"columns ({', '.join(corpus.extra)})",
    }
    lost = [words.get(name, name) for name, has in there.items() if has and name not in held]
    return f"this layout holds no {', no '.join(lost)}: left out" if lost else ""
