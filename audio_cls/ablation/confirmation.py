"""A study's best configurations, run again on fresh seeds and folds: what of their lead was luck?

The best of many noisy values is high partly by chance, and the more so the more were tried (regression to the mean): the value
that made a trial win is no estimate of what its configuration is worth. These runs chose nothing, so theirs is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from audio_cls.ablation.declaration import Cell
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.core.notices import progress, say, table
from audio_cls.core.stopping import GRACE_SECONDS
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.paired import Comparison, Mean, compare, mean_interval
from audio_cls.metrics.verdict import in_points, verdicts
from audio_cls.queue.status import Row, StudyStatus, study_status
from audio_cls.queue.storage import open_storage
from audio_cls.runs.folds import asked_folds, fold_label, grid_text
from audio_cls.runs.grid import GridItem, RunState, item_folder, read_state, run_grid, run_key, write_state
from audio_cls.runs.own_parts import recorded
from audio_cls.runs.preparation import mlflow_experiment, open_corpus
from audio_cls.study.launches import LAUNCH
from audio_cls.study.opening import PARENT, open_by_name
from audio_cls.study.search import dataset_info
from audio_cls.tracking import Tracker

__all__ = ["Candidate", "Confirmed", "candidates", "confirm", "confirm_command"]

FRESH = 10_000
"""Seeds of confirmation lie so far behind those of the search."""


@dataclass(frozen=True)
class Candidate:
    """One of a study's best configurations. `searched` is the value that it was found with."""

    trial: int
    searched: float
    experiment: Experiment
    params: dict[str, Any]


@dataclass(frozen=True)
class Confirmed:
    """A candidate with its fresh figures. rank: among the candidates, from 1. mean: of its runs with the interval.
    same_split: their mean on the split searched on alone (NaN where that is not among them), which leaves out how hard the other
    folds are. comparison: with the search's winner, None for that itself."""

    candidate: Candidate
    values: dict[Cell, float]
    mean: Mean
    same_split: float
    comparison: Comparison | None
    rank: int


def candidates(status: StudyStatus, top: int) -> list[Candidate]:
    """The best complete configurations of a study, the best first, each experiment once.

    Raises:
        UserError: where there is none, or for trials that audio_cls did not run.
    """
    found: dict[str, Candidate] = {}
    for row in status.rows:
        if row.state == "COMPLETE" and row.value is not None and len(found) < top:
            experiment = _experiment(status, row)
            found.setdefault(experiment.digest(), Candidate(row.number, row.value, experiment, row.params))
    if not found:
        raise UserError(
            f"study {status.name!r} has no complete configuration yet: {status.finished} finished, {status.running} running"
        )
    return list(found.values())


def _experiment(status: StudyStatus, row: Row) -> Experiment:
    stored = row.record.experiment
    if not stored:
        raise UserError(
            f"study {status.name!r}: trial {row.number} was not run by audio_cls: no experiment is stored with it"
        )
    where = f"trial {row.number}"
    return Experiment.from_json(stored, where) if isinstance(stored, str) else Experiment.parse(stored, where)


def grid(
    study: str, chosen: list[Candidate], corpus: Corpus, seeds: int, folds: str | None
) -> tuple[list[GridItem], list[tuple[int, Cell]]]:
    """The runs, by seed, fold and candidate, and for each the candidate's place and its cell (fold 0: the split as it was)."""
    items, places = [], []
    fold_key, values = asked_folds(chosen[0].experiment, corpus, folds)
    names = chosen[0].experiment.data.split.folds(corpus) if fold_key else {}
    for seed in range(seeds):
        for fold in values:
            for place, candidate in enumerate(chosen):
                changes: dict[str, Any] = {"seed": FRESH + seed}
                if fold_key is not None:
                    changes[fold_key] = fold
                experiment = candidate.experiment.override(changes)
                name = f"trial {candidate.trial} seed {FRESH + seed}" + (
                    f" {fold_label(fold, names[fold])}" if fold is not None else ""
                )
                params = {"confirmed.trial": str(candidate.trial), "confirmed.study": study}
                key = f"{run_key(experiment.digest(), corpus.digest)}-confirm"
                tags = {"study": study, "seed": str(FRESH + seed), "fold": str(fold or 0)}
                items.append(GridItem(name, experiment.to_dict(), key, tags, params))
                places.append((place, (FRESH + seed, fold or 0)))
    return items, places


def confirm(
    chosen: list[Candidate], places: list[tuple[int, Cell]], states: list[RunState], corpus: Corpus, metric: str
) -> list[Confirmed]:
    """Candidates ranked anew by their fresh runs, the best first; one without a run yet comes last."""
    plain, direction = metric.rpartition("/")[2], check_metric(metric)
    values: list[dict[Cell, float]] = [{} for _ in chosen]
    for (place, cell), state in zip(places, states, strict=True):
        if state.done:
            values[place][cell] = state.metrics.get(plain, nan) if state.state == "COMPLETE" else nan
    scheme = chosen[0].experiment.data.split
    own = scheme.fold_number(corpus)
    split = scheme.assign(corpus)
    ratio = len(split.validation) / len(split.train)
    means = [mean_interval(v, test_to_train=ratio) for v in values]
    sign = -1 if direction == "maximize" else 1
    order = sorted(range(len(chosen)), key=lambda i: (not isfinite(means[i].mean), sign * np.nan_to_num(means[i].mean)))
    out = []
    for rank, i in enumerate(order, start=1):
        same = [v for (_, fold), v in values[i].items() if fold in (0, own) and isfinite(v)]
        against = compare(
            values[i], values[0], test_to_train=ratio, direction=direction, arm=f"trial {chosen[i].trial}",
            reference=f"trial {chosen[0].trial}",
        )  # fmt: skip
        out.append(
            Confirmed(chosen[i], values[i], means[i], fmean(same) if same else nan, against if i else None, rank)
        )
    return out


def confirm_command(
    workspace: Workspace, reference: str, *, top: int, seeds: int, folds: str | None, workers: int, storage: str | None, device: str,
    grace: float = GRACE_SECONDS,
) -> None:  # fmt: skip
    """Run, rank again, print, record below one parent run."""
    opened = open_by_name(reference, open_storage(storage or workspace.optuna_db, must_exist=True))
    if reference.endswith(".py"):
        files = [Path(reference)]
    else:
        files = []
    status = study_status(opened)
    chosen = recorded(
        lambda: candidates(status, top), workspace, *_sources(workspace, opened, status), f"study {status.name}"
    )
    corpus = open_corpus(workspace, chosen[0].experiment.data.corpus)
    items, places = grid(status.name, chosen, corpus, seeds, folds)
    tracker = Tracker(workspace)
    tracker.flush()
    tag = hashlib.sha256("".join(item.key for item in items).encode()).hexdigest()[:12]
    folder = item_folder(workspace, f"confirm-{status.name}-{tag}")
    state = read_state(folder)
    parent = tracker.start(
        mlflow_experiment(corpus), f"confirm {status.name}", kind="confirmation", parent=opened.user_attrs.get(PARENT),
        params=chosen[0].experiment.flatten(), dataset=dataset_info(corpus), run_id=state.run_id,
        tags={"study": status.name, "trials": ", ".join(str(c.trial) for c in chosen), "data.digest": corpus.digest},
    )  # fmt: skip
    state.run_id = parent.id
    write_state(folder, state)
    n_folds = len({item.tags["fold"] for item in items})
    say(f"confirm {status.name}: {grid_text(configurations=len(chosen), seeds=seeds, folds=n_folds)}")
    with progress(f"confirm {status.name}") as tell:
        states = run_grid(
            items, workspace, workers=workers, parent=parent.id, kind="cell", device=device, files=files, grace_seconds=grace,
            on_poll=lambda now, phases: tell(
                sum(s.done for s in now), len(now), f"runs, {count(sum(s.epoch + 1 for s in now), 'epoch')} {phases}".strip()
            ),
        )  # fmt: skip
    ranked = confirm(chosen, places, states, corpus, status.metric)
    baseline = [s.baseline[plain] for s in states if (plain := status.metric.rpartition("/")[2]) in s.baseline]
    lines = show(status, chosen, ranked, fmean(baseline) if baseline else nan)
    best = next((c for c in ranked if isfinite(c.mean.mean)), None)
    if best is not None:
        plain = status.metric.rpartition("/")[2]
        parent.final({f"mean/{plain}": best.mean.mean, "final/searched": best.candidate.searched})
        parent.artifact_text("experiment.json", best.candidate.experiment.to_json())
        parent.artifact_text("confirmation.txt", "\n".join(lines))
    left = sum(not s.done for s in states)
    parent.finish("INTERRUPTED" if left else "COMPLETE", f"{left} of {len(items)} runs are left" if left else "")
    tracker.flush()
    for item, run in zip(items, states, strict=True):
        if run.state in ("FAILED", "REFUSED"):
            say(f"{run.state} {item.name}: {run.why}")
    if left:
        say(f"{left} of {len(items)} runs are left; the same command goes on with them")
        raise SystemExit(130)


def _sources(workspace: Workspace, opened: Any, status: StudyStatus) -> tuple[list[str], list[Path]]:
    """The digests of the files that declare a study's own parts, and its file, for studies that recorded no digests."""
    digests = {digest: None for row in status.rows for digest in row.record.sources}
    launch = opened.user_attrs.get(LAUNCH)
    return list(digests), [workspace.root / launch["file"]] if launch else []


def show(status: StudyStatus, chosen: list[Candidate], ranked: list[Confirmed], baseline: float = nan) -> list[str]:
    """Print the new ranking and what regressed. `baseline` is the mean figure of a model that learned nothing on the same splits.

    Returns the lines below the table.
    """
    points = in_points(status.metric)

    def number(value: float, signed: bool = False) -> str:
        if not isfinite(value):
            return ""
        return f"{100 * value:{'+' if signed else ''}.1f}" if points else f"{value:{'+' if signed else ''}.4g}"

    rows = []
    for c in ranked:
        low, high = (min(max(v, 0.0), 1.0) if points and isfinite(v) else v for v in (c.mean.low, c.mean.high))
        interval = f"[{number(low)}, {number(high)}]" if isfinite(low) else ""
        was = chosen.index(c.candidate) + 1
        rows.append(
            [c.rank, was, c.candidate.trial, number(c.candidate.searched), c.mean.n, number(c.mean.mean), interval,
             number(c.same_split), number(c.mean.mean - c.candidate.searched, signed=True)]
        )  # fmt: skip
    columns = ["rank", "was", "trial", "found", "runs", "anew", "95 %", "same split", "change"]
    table(f"{status.name}: {status.metric}{' (points)' if points else ''}, confirmed", columns, rows, right=range(9))
    judged = verdicts({str(c.candidate.trial): c.comparison for c in ranked if c.comparison is not None}, points=points)
    lines = [
        f"trial {trial} against the search's winner, trial {chosen[0].trial}: {v.text}" for trial, v in judged.items()
    ]
    known = [c for c in ranked if isfinite(c.mean.mean)]
    if known:
        searched, confirmed = (
            fmean(v) for v in zip(*((c.candidate.searched, c.mean.mean) for c in known), strict=True)
        )
        split = [c.same_split for c in known if isfinite(c.same_split)]
        on_it = f", {number(fmean(split))} on the split searched on" if len(split) == len(known) else ""
        lines.append(
            f"regression to the mean: found at {number(searched)}, confirmed at {number(confirmed)}{on_it} "
            f"({number(confirmed - searched, signed=True)}, mean of {count(len(known), 'configuration')})"
        )
    if isfinite(baseline):
        lines.append(f"a model that learned nothing: {number(baseline)} on the same splits")
    for line in lines:
        say(line)
    return lines
