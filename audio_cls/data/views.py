"""Views of a corpus with other labels, without packing it again: one class against the rest, families, a mapping, a selection.

A view is a `Corpus` over the same file of rows. Clips that have no place in it are left out, and its digest is its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError, choices, did_you_mean
from audio_cls.data.corpus import Corpus

__all__ = ["AsPublished", "Families", "LabelView", "Mapped", "OneAgainstRest", "Relabelled", "Select", "view_of"]

Labels = list[str] | None
"""The classes of a clip in a view; None for a clip that is left out of it."""


@dataclass(frozen=True)
class Relabelled:
    """What a view makes of a corpus.

    Attributes:
        classes: in order.
        labels: (n,) of each clip; None leaves it out.
        task: "multiclass" or "multilabel".
    """

    classes: tuple[str, ...]
    labels: Sequence[Labels]
    task: str


class LabelView(Component, family=True):
    """Other labels for the clips of a corpus."""

    def relabel(self, corpus: Corpus) -> Relabelled | None:
        """Return classes and labels of the view; None for the corpus as it is.

        Raises:
            UserError: for a class, family or mapping that does not fit the corpus.
        """
        raise NotImplementedError

    def apply(self, corpus: Corpus) -> Corpus:
        """Return the view of a corpus.

        Raises:
            UserError: as `relabel`, and for a view that leaves no clip, or nothing to tell apart.
        """
        made = self.relabel(corpus)
        if made is None:
            return corpus
        kept = np.asarray([i for i, labels in enumerate(made.labels) if labels is not None], dtype=np.int64)
        if not len(kept):
            raise UserError(f"data.labels={self.kind}: no clip of {corpus.name!r} is in this view")
        if made.task == "multiclass" and len({made.labels[int(i)][0] for i in kept}) < 2:  # type: ignore[index]
            raise UserError(
                f"data.labels={self.kind}: all clips of {corpus.name!r} that are in this view have one class"
            )
        column = {name: k for k, name in enumerate(made.classes)}
        labels = [sorted(column[name] for name in made.labels[int(i)] or ()) for i in kept]
        return corpus.view(kept, classes=made.classes, labels=labels, task=made.task, key=self._key())

    def _key(self) -> str:
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


class AsPublished(LabelView, kind="as_published"):
    """The labels of the data set."""

    def relabel(self, corpus: Corpus) -> None:
        return None


class OneAgainstRest(LabelView, kind="one_against_rest"):
    """One class against all others: does the clip hold it?"""

    target: str = ""
    """The class."""
    task: Literal["multiclass", "multilabel"] = "multiclass"
    """multiclass: two classes, `other` and the target; multilabel: the target alone, which a clip has or not."""
    other: str = "other"
    """The name of the rest."""

    def relabel(self, corpus: Corpus) -> Relabelled:
        if not self.target:
            raise UserError("data.labels=one_against_rest needs a class: data.labels.target=NAME")
        _known(self.target, corpus.classes, "data.labels.target", corpus)
        if self.other == self.target:
            raise UserError(f"data.labels.other={self.other!r} is the target's name too")
        holds = [self.target in names for names in _names(corpus)]
        if self.task == "multilabel":
            return Relabelled((self.target,), [[self.target] if yes else [] for yes in holds], self.task)
        return Relabelled(
            (self.other, self.target), [[self.target if yes else self.other] for yes in holds], "multiclass"
        )


class Families(LabelView, kind="families"):
    """The families of the classes, as the corpus records them from an ontology. A class may be in several."""

    several: Literal["keep", "leave_out"] = "keep"
    """Clips of several families: keep makes the view multilabel; leave_out leaves them out and makes it multiclass."""
    families: tuple[str, ...] = ()
    """The families that are used; none are all. Clips of no used family are left out."""

    def relabel(self, corpus: Corpus) -> Relabelled:
        if not corpus.families:
            raise UserError(
                f"data.labels=families: {corpus.name!r} records no families; prepare it with its ontology (for fsd50k: --set "
                "ontology=FILE), or name them yourself: data.labels=mapped"
            )
        found = list(dict.fromkeys(family for name in corpus.classes for family in corpus.families.get(name, ())))
        for name in self.families:
            _known(name, found, "data.labels.families", corpus)
        used = tuple(self.families) or tuple(found)
        labels: list[Labels] = []
        for names in _names(corpus):
            own = [f for f in used if any(f in corpus.families.get(name, ()) for name in names)]
            labels.append(None if not own or (len(own) > 1 and self.several == "leave_out") else own)
        return Relabelled(used, labels, "multiclass" if self.several == "leave_out" else "multilabel")


class _Renamed(LabelView):
    """Classes under other names, and what happens to the rest."""

    others: str | None = None
    """A class for all classes that are not named; none leaves them out."""
    unlabelled: Literal["leave_out", "keep"] = "leave_out"
    """Clips of a multilabel corpus that no class of the view remains for; keep makes them clips without a class."""

    def _pairs(self, corpus: Corpus) -> dict[str, str]:
        raise NotImplementedError

    def relabel(self, corpus: Corpus) -> Relabelled:
        new = self._pairs(corpus)
        if not new:
            raise UserError(f"data.labels={self.kind}: no class is named")
        if self.others is not None:
            new = {name: new.get(name, self.others) for name in corpus.classes}
        classes = tuple(dict.fromkeys(new.values()))
        keep = self.unlabelled == "keep" and corpus.task == "multilabel"
        labels: list[Labels] = []
        for names in _names(corpus):
            own = list(dict.fromkeys(new[name] for name in names if name in new))
            labels.append(own if own or keep else None)
        return Relabelled(classes, labels, corpus.task)


class Select(_Renamed, kind="select"):
    """Some of the classes."""

    classes: tuple[str, ...] = ()
    """Those that are used, in order."""

    def _pairs(self, corpus: Corpus) -> dict[str, str]:
        for name in self.classes:
            _known(name, corpus.classes, "data.labels.classes", corpus)
        return {name: name for name in self.classes}


class Mapped(_Renamed, kind="mapped"):
    """Classes put together or renamed."""

    pairs: tuple[str, ...] = ()
    """OLD=NEW for each class that is used, for example dog=animal,cat=animal; a bare name keeps its name."""

    def _pairs(self, corpus: Corpus) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for text in self.pairs:
            old, sign, new = text.rpartition("=")
            old, new = (old.strip(), new.strip()) if sign else (text.strip(), text.strip())
            _known(old, corpus.classes, "data.labels.pairs", corpus)
            if not new:
                raise UserError(f"data.labels.pairs: {text!r} gives {old!r} no name")
            if pairs.setdefault(old, new) != new:
                raise UserError(f"data.labels.pairs: {old!r} becomes both {pairs[old]!r} and {new!r}")
        return pairs


def _names(corpus: Corpus) -> list[list[str]]:
    return [[corpus.classes[k] for k in labels] for labels in corpus.label_lists]


def _known(name: str, allowed: Sequence[str], key: str, corpus: Corpus) -> None:
    if name not in allowed:
        listed = (
            choices(name, allowed) if len(allowed) <= 30 else f"It has {len(allowed)}.{did_you_mean(name, allowed)}"
        )
        raise UserError(f"{key}: {corpus.name!r} has no {name!r}. {listed}")


def view_of(corpus: Corpus, data: Mapping[str, Any]) -> Corpus:
    """Return the view that the data of a recorded experiment ask for (its `labels`; absent: the corpus as it is).

    Raises:
        UserError: for labels that are no view, or do not fit the corpus.
    """
    labels = data.get("labels")
    return LabelView.parse(labels, "data.labels").apply(corpus) if labels else corpus
