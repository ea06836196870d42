"""What the runs of a suite that are left will take, by the runs on its corpus that are finished."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import TYPE_CHECKING

import numpy as np

from audio_cls.ablation.record import read_records
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count, duration

if TYPE_CHECKING:
    from audio_cls.ablation.suite import Suite
    from audio_cls.tracking import RunInfo

__all__ = ["Cost", "cost_of", "seconds_per_epoch"]

MOST_RUNS = 500  # earlier runs that are read for what a run takes


@dataclass(frozen=True)
class Cost:
    """What the declared suite still takes. runs, epochs: that are left. seconds: one after the other, NaN if not known.
    words: the runs that say so."""

    runs: int
    epochs: int
    seconds: float
    words: str


def cost_of(suite: Suite, per_epoch: dict[str, float], words: str) -> Cost:
    """Return what is left to train of a suite."""
    records = read_records(suite.ablation, suite.plan, suite.study, suite.storage)
    left = [p for p, record in zip(suite.plan.cells, records, strict=True) if not record.done]
    seconds = sum(p.experiment.training.epochs * per_epoch.get(p.arm, nan) for p in left)
    return Cost(len(left), sum(p.experiment.training.epochs for p in left), float(seconds), words)


def seconds_per_epoch(suite: Suite) -> tuple[dict[str, float], str]:
    """Return seconds of an epoch by arm, and the runs that say so: of the suite's own arm, else of the same model on this corpus, else of
    any run on it."""
    try:
        runs = suite.tracker.runs(None, f"tags.`data.digest` = '{suite.corpus.digest}'", (), MOST_RUNS)
    except UserError:
        runs = []
    measured = [(run, seconds) for run in runs if isfinite(seconds := _epoch_seconds(run))]
    found: dict[str, float] = {}
    used: dict[str, int] = {}
    for arm in suite.ablation.arms:
        model = suite.ablation.arm(arm).model.kind
        own = [
            s
            for run, s in measured
            if run.params.get("ablation.suite") == suite.ablation.name and run.params.get("ablation.arm") == arm
        ]
        alike = [s for run, s in measured if run.params.get("model.kind") == model]
        for which, seen in (
            ("of this suite", own),
            (f"of {model} on this corpus", alike),
            (f"of other models than {model} on this corpus", [s for _, s in measured]),
        ):
            if seen:
                found[arm] = float(np.median(seen))
                used[which] = used.get(which, 0) + len(seen) if which == "of this suite" else len(seen)
                break
    if not found:
        return {}, "no finished run on this corpus to go by"
    text = ", ".join(f"{count(n, 'run')} {which}" for which, n in used.items())
    low, high = min(found.values()), max(found.values())
    epoch = duration(low) if high < 1.05 * low else f"{duration(low)} to {duration(high)}"
    return found, f"{epoch} an epoch, by {text}"


def _epoch_seconds(run: RunInfo) -> float:
    """Return the seconds of an epoch of a finished run, its evaluation included; NaN if they were not recorded."""
    seconds, epochs = run.metrics.get("final/seconds", nan), run.metrics.get("final/epochs", nan)
    return seconds / epochs if run.state == "COMPLETE" and epochs > 0 else nan
