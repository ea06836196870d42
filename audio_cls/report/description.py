"""What is in a corpus, as plain tables: counts, durations, original formats, and the scores that need no learning."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.default_split import choose_split
from audio_cls.data.formats import sample_formats
from audio_cls.data.groups import shared_groups_published
from audio_cls.data.near import near_pairs
from audio_cls.data.splits import Split
from audio_cls.metrics.baselines import accuracy_caveat, baseline_figures, few_clips

__all__ = ["Description", "describe"]


_EXTREMES = 10  # classes that are named as the most and the least frequent


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Description:
    """A corpus in numbers; everything is plain Python, so `to_dict` is JSON.

    Attributes:
        sample_rate: of waveforms in Hz; 0 where rows are no waveforms.
        rows: what one row is: of a waveform a sample, of other corpora a vector or a column of pixels.
        class_counts: clips of each class, in the order of `classes`.
        by_fold: fold -> clips of each class; empty without folds.
        by_split: "train", "validation", "test" -> clips of each class: of the given split, else of the published one.
        clips_by_fold, clips_by_split: how many clips (with many labels a clip, not the sum of the counts).
        seconds: minimum, median, maximum and total duration.
        sample_rates, channels: of the original files, with how many clips have them.
        formats: how samples are stored in the original files ("PCM_16") -> files, of up to 200 that are still there.
        labels_per_clip: number of labels -> clips.
        by_family: family -> clips with any of its classes; empty without families.
        n_groups: different groups named; 0 without groups.
        shared_groups: "splits" or "folds" -> how many groups have clips in more than one of them, 0 left out.
        baselines: name -> side ("all" without a split) -> score. multiclass: "majority accuracy" (the most frequent
            class of the training side), "majority macro F1", "majority UAR", "random accuracy" (guessing uniformly) and
            "prior accuracy" (guessing with the training side's frequencies). multilabel: "prior mAP", the mean prevalence over
            the classes that occur, which is what scores that say nothing attain in expectation.
        warnings: sentences on what figures on these data cannot say: classes with few clips to be measured on, one class that
            makes accuracy meaningless.
        turned_down: clips whose level was lowered to keep them from clipping.
        duplicates: sets of ids whose audio is the same (`data.identical`).
        near: pairs of ids that are nearly the same (`data.near`): similarity, seconds by which the first begins later, and the sides
            (of the given split, else the published fold or split, else the default split) of both.
        bad: clips left out when the corpus was prepared: id, row, reason.
    """

    name: str
    task: str
    sample_rate: int
    rows: str
    digest: str
    source: str
    note: str
    n_clips: int
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    by_fold: dict[int, tuple[int, ...]]
    by_split: dict[str, tuple[int, ...]]
    clips_by_fold: dict[int, int]
    clips_by_split: dict[str, int]
    seconds: dict[str, float]
    sample_rates: dict[int, int]
    channels: dict[int, int]
    formats: dict[str, int]
    labels_per_clip: dict[int, int]
    by_family: dict[str, int]
    n_groups: int
    shared_groups: dict[str, int]
    baselines: dict[str, dict[str, float]]
    warnings: tuple[str, ...]
    turned_down: int
    duplicates: tuple[tuple[str, ...], ...]
    near: tuple[tuple[str, str, float, float, str], ...]
    bad: tuple[tuple[str, int | None, str], ...]

    def _origin(self) -> list[tuple[str, Any]]:
        """Return the rows of the table that say what is packed and what it comes from."""
        if not self.sample_rate:
            return [("rows", self.rows)]
        return [
            ("packed at", f"{self.sample_rate} Hz"),
            ("original rates", _counted(self.sample_rates, " Hz")),
            ("original channels", _counted(self.channels, "")),
            *([("original samples", _counted(self.formats, ""))] if self.formats else []),
        ]

    def _frequencies(self) -> list[tuple[str, Any]]:
        """Return the rows that name the most and the least frequent classes, where there are too many to be seen at once."""
        if len(self.classes) <= 2 * _EXTREMES:
            return []
        order = sorted(range(len(self.classes)), key=lambda k: (-self.class_counts[k], k))

        def listed(places: list[int]) -> str:
            return ", ".join(f"{self.classes[k]} {self.class_counts[k]:,}" for k in places)

        return [
            ("most frequent", listed(order[:_EXTREMES])),
            ("least frequent", listed(order[: -_EXTREMES - 1 : -1])),
        ]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def tables(self, most_pairs: int = 10) -> list[Table]:
        """Return the description as tables for a terminal or a page, the empty ones left out.

        Args:
            most_pairs: rows of the table of nearly identical clips.
        """
        s = self.seconds
        facts: list[tuple[str, Any]] = [
            ("task", self.task),
            ("clips", f"{self.n_clips:,} ({s['total'] / 3600:.2f} h)"),
            ("classes", len(self.classes)),
            ("duration", f"{s['min']:.2f} / {s['median']:.2f} / {s['max']:.2f} s (min / median / max)"),
            *self._origin(),
            ("labels a clip", _counted(self.labels_per_clip, "")),
            *self._frequencies(),
            ("groups", self.n_groups or "none named"),
            *(
                ("groups in two splits" if part == "splits" else "groups in two folds", n)
                for part, n in self.shared_groups.items()
            ),
            ("digest", self.digest[:16]),
        ]
        optional: list[tuple[str, Any]] = [
            ("turned down to avoid clipping", self.turned_down),
            ("identical clips", _listed(self.duplicates)),
            ("left out as bad", len(self.bad)),
            ("note", self.note),
            *(("beware", line) for line in self.warnings),
        ]
        tables = [Table(self.name, ("", "value"), tuple(facts + [row for row in optional if row[1]]))]
        sides: dict[str, tuple[int, ...]] = {**{f"fold {k}": v for k, v in self.by_fold.items()}, **self.by_split}
        rows = [
            (
                name,
                self.class_counts[i],
                self.class_counts[i] / max(1, self.n_clips),
                *(counts[i] for counts in sides.values()),
            )
            for i, name in enumerate(self.classes)
        ]
        totals = (*self.clips_by_fold.values(), *self.clips_by_split.values())
        rows.append(("clips", self.n_clips, 1.0, *totals))
        tables.append(Table("clips by class", ("class", "clips", "share", *sides), tuple(rows)))
        if self.by_family:
            families = sorted(self.by_family.items(), key=lambda item: -item[1])
            shares = tuple((name, n, n / max(1, self.n_clips)) for name, n in families)
            tables.append(Table("clips by family", ("family", "clips", "share"), shares))
        where = tuple(next(iter(self.baselines.values())))
        scores = tuple((name, *(values[side] for side in where)) for name, values in self.baselines.items())
        tables.append(Table("baselines that learn nothing", ("baseline", *where), scores))
        if self.near:
            title = "nearly identical clips" + (
                f", {most_pairs} of {len(self.near)}" if len(self.near) > most_pairs else ""
            )
            columns = ("clip", "and", "similarity", "shift in s", "where")
            tables.append(Table(title, columns, self.near[:most_pairs]))
        if self.bad:
            tables.append(Table("left out", ("clip", "row", "reason"), self.bad[:20]))
        return tables


def describe(corpus: Corpus, split: Split | None = None) -> Description:
    """Describe a corpus, by the given split or else by what the data set publishes."""
    sides = _sides(corpus, split)
    folds = {int(f): np.flatnonzero(corpus.folds == f) for f in np.unique(corpus.folds) if f >= 0}
    seconds = corpus.seconds
    return Description(
        name=corpus.name,
        task=corpus.task,
        sample_rate=corpus.sample_rate,
        rows=corpus.payload.describe(),
        digest=corpus.digest,
        source=corpus.source,
        note=corpus.note,
        n_clips=len(corpus),
        classes=corpus.classes,
        class_counts=_counts(corpus, None),
        by_fold={f: _counts(corpus, i) for f, i in folds.items()},
        by_split={name: _counts(corpus, i) for name, i in sides.items()},
        clips_by_fold={f: len(i) for f, i in folds.items()},
        clips_by_split={name: len(i) for name, i in sides.items()},
        seconds={
            "min": float(seconds.min()),
            "median": float(np.median(seconds)),
            "max": float(seconds.max()),
            "total": float(seconds.sum()),
        },
        sample_rates=_tally(corpus.source_rates),
        channels=_tally(corpus.source_channels),
        formats=sample_formats(corpus),
        by_family=_families(corpus),
        labels_per_clip=_tally(corpus.targets.sum(axis=1).astype(np.int64)),
        n_groups=len({g for g in corpus.groups if g is not None}),
        shared_groups=shared_groups_published(corpus),
        baselines=_baselines(corpus, sides),
        warnings=_warnings(corpus, sides, list(folds.values())),
        turned_down=int((corpus.gains < 1).sum()),
        duplicates=tuple(tuple(corpus.ids[i] for i in clips) for clips in corpus.identical),
        near=_near(corpus, split),
        bad=tuple((id_, row, reason) for id_, _, row, reason in corpus.bad),
    )


def _families(corpus: Corpus) -> dict[str, int]:
    """Return family -> clips with any of its classes, in the order of the classes."""
    names = list(dict.fromkeys(family for name in corpus.classes for family in corpus.families.get(name, ())))
    member = {f: [k for k, name in enumerate(corpus.classes) if f in corpus.families.get(name, ())] for f in names}
    return {family: int((corpus.targets[:, classes].max(axis=1) > 0).sum()) for family, classes in member.items()}


def _sides(corpus: Corpus, split: Split | None) -> dict[str, NDArray[np.int64]]:
    if split is not None:
        return {name: side for name, side in split.sides().items() if len(side)}
    names = np.asarray([s or "" for s in corpus.splits])
    sides = {name: np.flatnonzero(names == name) for name in ("train", "validation", "test")}
    return {name: side for name, side in sides.items() if len(side)}


def _baselines(corpus: Corpus, sides: dict[str, NDArray[np.int64]]) -> dict[str, dict[str, float]]:
    scored = {name: side for name, side in sides.items() if name != "train"} or {"all": np.arange(len(corpus))}
    share = {name: corpus.targets[side].mean(axis=0, dtype=np.float64) for name, side in scored.items()}
    if corpus.task == "multilabel":
        return {"prior mAP": {name: float(p[p > 0].mean()) if (p > 0).any() else 0.0 for name, p in share.items()}}
    prior = corpus.targets[sides.get("train", np.arange(len(corpus)))].mean(axis=0, dtype=np.float64)
    training = corpus.targets[sides.get("train", np.arange(len(corpus)))]
    majority = {name: baseline_figures(training, corpus.targets[side], corpus.task) for name, side in scored.items()}
    return {
        "majority accuracy": {name: float(p[prior.argmax()]) for name, p in share.items()},
        "majority macro F1": {name: found["macro_f1"] for name, found in majority.items()},
        "majority UAR": {name: found["uar"] for name, found in majority.items()},
        "random accuracy": dict.fromkeys(share, 1 / len(corpus.classes)),
        "prior accuracy": {name: float((p * prior).sum()) for name, p in share.items()},
    }


def _warnings(corpus: Corpus, sides: dict[str, NDArray[np.int64]], folds: list[NDArray[np.int64]]) -> tuple[str, ...]:
    """Return what figures on these data cannot say. Runs are measured on the validation side where it is named, else
    on a fold, else on about a fifth of the clips.
    """
    counts = corpus.class_counts()
    if "validation" in sides:
        few = few_clips(corpus.class_counts(sides["validation"]), corpus.classes)
    elif folds:
        smallest = np.min([corpus.class_counts(fold) for fold in folds], axis=0)
        few = few_clips(smallest, corpus.classes, "clips (in the smallest fold)")
    else:
        few = few_clips(counts // 5, corpus.classes, "clips (in a fifth, the usual validation side)")
    measured = corpus.targets[sides["validation"]] if "validation" in sides else corpus.targets
    caveat = accuracy_caveat("accuracy", measured, corpus.task, corpus.classes)
    return tuple(line for line in (caveat, few) if line)


def _near(corpus: Corpus, split: Split | None) -> tuple[tuple[str, str, float, float, str], ...]:
    pairs = near_pairs(corpus)
    if pairs and split is None and not any(corpus.splits) and (corpus.folds < 0).all():
        with contextlib.suppress(UserError):  # too few clips to be split
            split = choose_split(corpus)[0].assign(corpus)
    sides = {} if split is None else split.side_of()

    def where(i: int) -> str:
        published = corpus.splits[i] or (f"fold {corpus.folds[i]}" if corpus.folds[i] >= 0 else "")
        return (published if split is None else sides.get(i, "unused")) or "no side"

    def both(a: int, b: int) -> str:
        group = ", one group" if corpus.groups[a] is not None and corpus.groups[a] == corpus.groups[b] else ""
        return (where(a) if where(a) == where(b) else f"{where(a)} | {where(b)}") + group

    return tuple((corpus.ids[p.a], corpus.ids[p.b], p.similarity, p.shift, both(p.a, p.b)) for p in pairs)


def _listed(sets: tuple[tuple[str, ...], ...]) -> str:
    more = f", and {len(sets) - 5} more sets" if len(sets) > 5 else ""
    return ", ".join(" = ".join((*ids[:3], *(["..."] if len(ids) > 3 else []))) for ids in sets[:5]) + more


def _counts(corpus: Corpus, indices: NDArray[np.int64] | None) -> tuple[int, ...]:
    return tuple(corpus.class_counts(indices).tolist())


def _tally(values: NDArray[np.int64]) -> dict[int, int]:
    return dict(sorted(Counter(values.tolist()).items()))


def _counted(counts: Mapping[Any, int], unit: str) -> str:
    shown = [
        f"{value}{unit}" if len(counts) == 1 else f"{value}{unit} ({n:,})" for value, n in list(counts.items())[:8]
    ]
    return ", ".join(shown) + (", ..." if len(counts) > 8 else "")
