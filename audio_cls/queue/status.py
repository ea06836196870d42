"""How a study stands: what is finished, what runs, the best so far, and how long the rest may take."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count, duration
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.published import Published, check_published
from audio_cls.queue.queue import Tally
from audio_cls.queue.record import INTERRUPTED, TrialRecord, is_finished, record_of, root_of, row_state
from audio_cls.queue.storage import IDENTITY, TOTAL, StudyStorage, damage_as_user_error, load_study
from audio_cls.queue.work import SEARCH, kind_of
from audio_cls.queue.worker import reason_kind
from audio_cls.runs.loss_settings import loss_remark

__all__ = [
    "BEST_EPOCH",
    "PUBLISHED",
    "Row",
    "StudyStatus",
    "baseline_of",
    "best_experiment",
    "findings_of",
    "last_epoch_of",
    "number_text",
    "searched_keys",
    "stored_status",
    "study_status",
    "summary",
]

BEST_EPOCH = "best epoch, chosen on these clips"
"""What the value of a trial is: higher than what its configuration is worth, since its epoch was chosen by it."""

PUBLISHED = "published"  # user attribute of a study: figures of others


@dataclass(frozen=True)
class Row:
    """One configuration, by its latest attempt. `seconds` is what its finished attempts took together."""

    number: int
    root: int
    config: int | None
    state: str  # COMPLETE, PRUNED, FAILED, RUNNING or WAITING
    value: float | None
    reason: str
    params: dict[str, Any]
    record: TrialRecord
    epochs: int
    attempts: int
    revived: bool
    seconds: float | None

    @property
    def collapsed(self) -> str:
        """Why the weights that its value is of have collapsed (see `audio_cls.runs.collapse`); empty if they have not."""
        return str(self.record.collapsed.get("best", "")) if self.state == "COMPLETE" else ""

    @property
    def state_text(self) -> str:
        """Its state as tables show it."""
        marks = [mark for mark, there in (("revived", self.revived), ("collapsed", self.collapsed)) if there]
        return self.state.lower() + (f" ({', '.join(marks)})" if marks else "")


@dataclass(frozen=True)
class StudyStatus:
    """A study at one moment. Counts are of configurations; `failed` is by kind of reason; `attempts` counts all trials."""

    name: str
    metric: str
    direction: str
    total: int | None
    complete: int
    pruned: int
    failed: dict[str, int]
    running: int
    waiting: int
    revived: int
    interruptions: int
    others: int  # trials without an index: somebody else's
    attempts: int
    best: Row | None
    rows: tuple[Row, ...] = field(
        repr=False
    )  # leaderboard: complete ones from the best on, collapsed last; then pruned, failed, live
    seconds_per_configuration: float | None = None
    seconds_left: float | None = None
    revived_complete: int = 0
    overtook: int = 0  # of these, how many are better than the best that was never pruned
    never_pruned_best: Row | None = None
    kind: str = "search"
    extended: int = 0  # revived to a larger budget than the others had: not compared
    collapsed: int = 0  # complete ones whose value is of collapsed weights: they are the best only if all are
    published: tuple[Published, ...] = ()  # figures of others, in no statistic
    sampler: str = ""  # the kind of sampler that chose its configurations; empty for other work than a search

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + sum(self.failed.values())


def stored_status(name: str, storage: StudyStorage) -> StudyStatus:
    """Return the status of a study that is given by its name.

    Raises:
        UserError: when there is no such study, or it is damaged.
    """
    study = load_study(name, storage)
    with damage_as_user_error(name):
        return study_status(study)


def study_status(study: optuna.Study, total: int | None = None) -> StudyStatus:
    """Return the status of a study; `total` is the one last asked for unless given."""
    trials = study.get_trials(deepcopy=False)
    tally = Tally.of(trials)
    attrs = study.user_attrs
    total = total if total is not None else attrs.get(TOTAL)
    maximize = study.direction == StudyDirection.MAXIMIZE
    finished_others = [t for t in tally.others if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    by_root: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        by_root.setdefault(root_of(trial), []).append(trial)
    rows = [_row(t, by_root[root_of(t)]) for t in (*tally.latest.values(), *finished_others)]
    rank = {"COMPLETE": 0, "PRUNED": 1, "FAILED": 2, "RUNNING": 3, "WAITING": 4}

    def order(row: Row) -> tuple[int, bool, float, int]:
        value = row.value if row.value is not None else (float("-inf") if maximize else float("inf"))
        return rank[row.state], bool(row.collapsed), -value if maximize else value, row.number

    rows.sort(key=order)
    mine = [r for r in rows if r.config is not None]
    states = Counter(r.state for r in mine)
    failed = Counter(reason_kind(r.reason) or "unknown" for r in mine if r.state == "FAILED")
    complete = [r for r in rows if r.state == "COMPLETE"]
    best = complete[0] if complete else None
    revived = [r for r in complete if r.revived and not r.record.changes]
    kept = next((r for r in complete if not r.revived), None)
    seconds = [
        r.seconds
        for r in mine
        if r.seconds is not None and not r.record.adopted_from and r.state in ("COMPLETE", "PRUNED", "FAILED")
    ]
    pace = statistics.fmean(seconds) if seconds else None
    done = states["COMPLETE"] + states["PRUNED"] + states["FAILED"]
    left = None
    if pace is not None and total is not None:
        left = max(0, total - done) * pace / max(1, states["RUNNING"])
    return StudyStatus(
        name=study.study_name,
        metric=attrs.get(IDENTITY, {}).get("metric", "value"),
        direction="maximize" if maximize else "minimize",
        total=total,
        complete=states["COMPLETE"],
        pruned=states["PRUNED"],
        failed=dict(failed),
        running=states["RUNNING"],
        waiting=states["WAITING"],
        revived=sum(r.revived for r in mine),
        interruptions=sum(record_of(t).outcome == INTERRUPTED and t.state == TrialState.FAIL for t in trials),
        others=len(tally.others),
        revived_complete=len(revived),
        overtook=sum(kept is None or order(r)[:3] < order(kept)[:3] for r in revived),
        never_pruned_best=kept,
        extended=sum(r.revived and bool(r.record.changes) for r in complete),
        collapsed=sum(bool(r.collapsed) for r in complete),
        attempts=len(trials),
        best=best,
        rows=tuple(rows),
        kind=kind_of(attrs),
        published=check_published(study.study_name, attrs.get(PUBLISHED, ())),
        sampler=str((attrs.get(IDENTITY, {}).get("sampler") or {}).get("kind", "")),
        seconds_per_configuration=pace,
        seconds_left=left,
    )


def _row(trial: FrozenTrial, attempts: Sequence[FrozenTrial]) -> Row:
    # Attempts that were cut short lasted until somebody noticed: their durations say nothing.
    lasted = [t.duration.total_seconds() for t in attempts if t.duration is not None and is_finished(t)]
    record = record_of(trial)
    last = trial.last_step
    value = (
        trial.value if trial.state.is_finished() else (trial.intermediate_values[last] if last is not None else None)
    )
    return Row(
        number=trial.number,
        root=root_of(trial),
        config=record.config,
        state=row_state(trial),
        value=value,
        reason=record.reason if trial.state.is_finished() else "",
        params=dict(trial.params),
        record=record,
        epochs=len(trial.intermediate_values),
        attempts=record.attempt + 1,
        revived=record.revived,
        seconds=sum(lasted) if lasted else None,
    )


def summary(status: StudyStatus) -> list[str]:
    """Return the status in a few lines of text."""
    total = f" of {status.total}" if status.total is not None else ""
    collapsed = f", {status.collapsed} of them collapsed" if status.collapsed else ""
    parts = [
        f"{status.complete} complete{collapsed}",
        f"{status.pruned} pruned",
        f"{sum(status.failed.values())} failed",
    ]
    lines = [
        f"{status.name}: {status.finished}{total} configurations finished ({', '.join(parts)}), {status.running} running, {status.waiting} waiting"
    ]
    if status.failed:
        lines.append("failed: " + ", ".join(f"{count} {kind}" for kind, count in sorted(status.failed.items())))
    if status.interruptions:
        lines.append(f"{count(status.interruptions, 'interruption')} taken up")
    if status.revived:
        lines.append(_pruning_lost(status))
    if status.others:
        lines.append(f"started by others, not counted: {count(status.others, 'trial')}")
    if status.best and status.kind == SEARCH:
        baseline = baseline_of(status)
        last = last_epoch_of(status.best, status.metric)
        beside = [] if last is None else [f"last epoch: {number_text(last)}"]
        beside += [] if baseline is None else [f"a model that learned nothing: {number_text(baseline)}"]
        lines.append(
            f"best: trial {status.best.number}, {status.metric} {number_text(status.best.value)}, {BEST_EPOCH}"
            + (f" ({'; '.join(beside)})" if beside else "")
        )
        lines += [f"  {key} = {number_text(value)}" for key, value in status.best.params.items()]
        lines += [f"  {line}" for line in findings_of(status)]
    if status.seconds_left:
        lines.append(
            f"about {duration(status.seconds_left)} left ({duration(status.seconds_per_configuration)} a configuration)"
        )
    return lines


def baseline_of(status: StudyStatus) -> float | None:
    """Return the study's metric of a model that learned nothing, on the clips of the best trial; None if it was
    not recorded (trials of earlier versions, and the loss, which depends on how it was trained).
    """
    recorded = status.best.record.baseline if status.best else {}
    return recorded.get(plain_name(status.metric))


def last_epoch_of(row: Row, metric: str) -> float | None:
    """Return a trial's figure at its last epoch, which nobody chose; None if it was not recorded."""
    return row.record.last.get(plain_name(metric))


def findings_of(status: StudyStatus) -> list[str]:
    """Return what is wrong with the comparison of the trials, and with the best one's predictions, in sentences; empty if
    nothing is, or it was not recorded.
    """
    stored = {f"configuration {r.config}": r.record.experiment for r in status.rows if r.record.experiment}
    remark = loss_remark(status.metric, stored) if status.kind == SEARCH else ""
    return [*([remark] if remark else []), *(str(line) for line in status.best.record.findings)] if status.best else []


def best_experiment(status: StudyStatus) -> tuple[Row, dict[str, Any]]:
    """Return a study's best trial and the experiment that was recorded with it, as plain values.

    Raises:
        UserError: where no trial is complete, or the best one was not run by audio_cls.
    """
    best = status.best
    if best is None:
        raise UserError(
            f"study {status.name!r} has no complete trial yet: {status.finished} finished, {status.running} running"
        )
    stored = best.record.experiment
    if not stored:
        raise UserError(
            f"study {status.name!r}: trial {best.number} was not run by audio_cls: no experiment is stored with it"
        )
    return best, json.loads(stored) if isinstance(stored, str) else dict(stored)


def searched_keys(status: StudyStatus) -> list[str]:
    """Return the experiment's keys that the trials of a study override, in the order in which they appear."""
    return list(dict.fromkeys(key for row in status.rows for key in row.record.overrides))


def _pruning_lost(status: StudyStatus) -> str:
    """Return what the revived configurations say of the pruner."""
    line = f"{count(status.revived, 'pruned configuration')} revived"
    kept = status.never_pruned_best
    if status.revived_complete:
        against = f"the best that was never pruned ({number_text(kept.value)})" if kept else "the others, all pruned"
        line += f"; of {status.revived_complete} trained to the end, {status.overtook} overtook {against}"
    if status.overtook and kept and kept.value is not None:
        values = [r.value for r in status.rows if r.state == "COMPLETE" and r.revived and not r.record.changes]
        line += f": pruning would have lost {abs(next(v for v in values if v is not None) - kept.value):.4g}"
    if status.extended:
        line += f"; {status.extended} trained to a larger budget, not compared"
    return line


def number_text(value: Any) -> str:
    """Format a number, or anything else, for people."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
