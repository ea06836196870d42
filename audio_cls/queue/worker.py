"""A worker: takes trials from a queue, runs the objective, records how they ended; leaves when the total is reached."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from audio_cls.core.config import Component, ConfigError
from audio_cls.core.disk import DiskFull, is_disk_full
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import StopRequest
from audio_cls.queue.lease import Lease, worker_identity
from audio_cls.queue.options import USUAL, QueueOptions
from audio_cls.queue.queue import LIVE, Queue, Tally
from audio_cls.queue.record import FAILED, REFUSED, TrialRecord, attributes, config_of, plain, record_of, root_of
from audio_cls.queue.seam import Objective, Outcome, TrialContext
from audio_cls.queue.storage import TOTAL, LockBusy, StudyStorage, open_storage, open_study, patiently
from audio_cls.queue.work import Work

__all__ = ["RepeatedFailure", "Shift", "WorkerReport", "reason_kind", "run_worker"]

log = logging.getLogger(__name__)

DATABASE = "optuna.db"  # in the workspace
LOST = "lease lost"
TRACEBACK_CHARACTERS = 6000


class RepeatedFailure(UserError):
    """The first trials of a run all failed in the same way: a fault that further trials would only repeat."""


@dataclass
class WorkerReport:
    """What one worker did. `ended` counts its trials by outcome."""

    left: Literal["total reached", "interrupted"]
    reason: str = ""
    ended: dict[str, int] = field(default_factory=dict)


def reason_kind(reason: str) -> str:
    """What failures are distinguished by: `oom: 3 GiB ...` is `oom`, `error: ValueError: ...` is `error: ValueError`."""
    parts = [part.strip() for part in reason.split(":")]
    return ": ".join(parts[:2]) if parts[0] == "error" and len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Shift:
    """What bounds one worker's stay.

    Attributes:
        only: the configurations (indices) that it runs, and leaves when they are finished; the study's total stays what it was.
        since: seconds since the epoch; failures before do not count towards `same_failures`. Now unless given.
        supervisor: the worker leaves when this process ends.
        stop: a request to leave that the caller has entered already; `supervisor` and the grace are then its own.
    """

    only: Collection[int] | None = None
    since: float | None = None
    supervisor: int | None = None
    stop: StopRequest | None = None


UNBOUNDED = Shift()


def run_worker(
    work: Work,
    workspace: Path,
    total: int,
    objective: Objective,
    options: QueueOptions = USUAL,
    *,
    identity: Mapping[str, Any] | None = None,
    shift: Shift = UNBOUNDED,
) -> WorkerReport:
    """Run trials until `total` configurations of the work are finished, or until asked to leave; then the epoch under way
    is finished, or given up after the grace.

    Work whose configurations are not drawn ends when none of them waits or runs; `total` is then without effect. `identity` joins
    the work's identity.

    Raises:
        UserError: when the study cannot be opened, its space fails or gives keys that do not hold.
        DiskFull: when there was no room for a checkpoint, or in the database; the trial continues when the study does.
        RepeatedFailure: when the first trials of a search since `shift.since` all failed in the same way.
    """
    since = time.time() if shift.since is None else shift.since
    asked = contextlib.nullcontext(shift.stop) if shift.stop else StopRequest(shift.supervisor, options.grace_seconds)
    with asked as stop, _full_disk_told(workspace):
        storage = open_storage(options.storage or workspace / DATABASE, heartbeat=options.heartbeat)
        study = open_study(work, storage, extra=identity)
        if shift.only is None and work.drawn and study.user_attrs.get(TOTAL) != total:
            study.set_user_attr(TOTAL, total)
        queue = Queue(
            study, storage, worker_identity(),
            max_deaths=options.max_deaths, foreign_hours=options.foreign_hours, drawn=work.drawn,
        )  # fmt: skip
        worker = _Worker(work, study, storage, queue, objective, stop)
        ended: Counter[str] = Counter()
        reported = ""
        while (reason := stop.reason()) is None:
            trial, tally = worker.claim(total, shift.only)
            if tally is None:
                continue
            if trial is None:
                if _reached(work, tally, total, shift.only):
                    return WorkerReport("total reached", ended=dict(ended))
                elsewhere = ", ".join(str(t.number) for t in tally.live)
                if elsewhere != reported:
                    log.info("nothing left to begin: trials that others run: %s", elsewhere)
                    reported = elsewhere
                stop.wait(options.poll_seconds)
                continue
            ended[worker.run(trial)] += 1
            if worker.disk_full:
                raise DiskFull(worker.disk_full)
            if work.drawn:
                _refuse_repetition(queue.tally(), since, options.same_failures)
        return WorkerReport("interrupted", reason, dict(ended))


@contextlib.contextmanager
def _full_disk_told(workspace: Path) -> Iterator[None]:
    """Leave with one clear message, instead of a database's traceback, when there is no room."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        said = str(error).removeprefix("disk full").lstrip(": ") if isinstance(error, DiskFull) else str(error)
        raise DiskFull(
            f"disk full: {said}. Nothing is lost: make room (the workspace is {workspace}) and run the same command again"
        ) from None


def _reached(work: Work, tally: Tally, total: int, only: Collection[int] | None) -> bool:
    if work.drawn and only is None:
        return len(tally.finished) >= total
    return not any(only is None or config_of(t) in only for t in tally.latest.values() if t.state in LIVE)


def _refuse_repetition(tally: Tally, since: float, limit: int) -> None:
    recent = [t for t in tally.finished if t.datetime_complete and t.datetime_complete.timestamp() >= since]
    kinds = {reason_kind(record_of(t).reason) if t.state == TrialState.FAIL else "" for t in recent}
    if len(recent) >= limit and len(kinds) == 1 and "" not in kinds:
        last = record_of(max(recent, key=lambda t: t.number))
        where = last.traceback.strip()
        raise RepeatedFailure(
            f"the first {len(recent)} trials all failed in the same way: {last.reason}. "
            "The study was stopped; mend the cause and run the same command again." + (f"\n{where}" if where else "")
        )


class _Refused(Exception):
    """A configuration cannot be run; the others can."""


class _Worker:
    def __init__(
        self,
        work: Work,
        study: optuna.Study,
        storage: StudyStorage,
        queue: Queue,
        objective: Objective,
        stop: StopRequest,
    ) -> None:
        self.work = work
        self.study = study
        self.storage = storage
        self.queue = queue
        self.objective = objective
        self.stop = stop
        self.disk_full = ""  # why the last attempt ended, if it did for want of room

    def claim(self, total: int, only: Collection[int] | None = None) -> tuple[optuna.Trial | None, Tally | None]:
        """The queue's claim; (None, None) while the lock is held by somebody else."""
        try:
            return patiently(lambda: self.queue.claim(total, only), give_up=lambda: self.stop.reason() is not None)
        except LockBusy as error:
            log.warning("%s: waiting", error)
            return None, None

    def run(self, trial: optuna.Trial) -> str:
        """One attempt, from its parameters to its end; how it ended."""
        try:
            with Lease(self.study, self.storage, trial._trial_id) as lease:
                try:
                    overrides, experiment = self._draw(trial)
                    outcome = self._attempt(trial, lease, overrides, experiment)
                except _Refused as refused:
                    outcome = Outcome("FAILED", None, str(refused), attrs=attributes(outcome=REFUSED))
                return self._tell(trial, lease, outcome)
        finally:
            self.queue.release(trial)

    def _draw(self, trial: optuna.Trial) -> tuple[dict[str, Any], Component]:
        """Parameters and experiment; a mistake in the study's file costs no configuration."""
        try:
            drawn = self.work.draw(trial)
            for key, value in attributes(ready=True).items():
                trial.set_user_attr(key, value)
            return drawn
        except UserError as error:
            self._give_back(trial, "space", error)
            raise

    def _give_back(self, trial: optuna.Trial, what: str, error: UserError) -> None:
        """Leave an attempt to a later run: a new one as if it had never been, a resumed one as interrupted.

        Raises:
            _Refused: where configurations are given, not drawn: the mistake is in this one alone.
        """
        if not self.work.drawn:
            raise _Refused(f"refused: {error}") from error
        reason = f"{what}: {error}"
        resumed = TrialRecord.of(trial.user_attrs).resumed_from is not None
        self._until_free(lambda: (self.queue.interrupt if resumed else self.queue.abandon)(trial, _short(reason)))

    def _attempt(self, trial: optuna.Trial, lease: Lease, overrides: dict[str, Any], experiment: Component) -> Outcome:
        attempt = _Attempt(self.study, trial, lease, self.stop)
        attrs = trial.user_attrs
        record = TrialRecord.of(attrs)
        assert record.config is not None
        root = trial.number if record.root_trial is None else record.root_trial
        context = TrialContext(
            study=self.work.name,
            number=trial.number,
            root=root,
            config_index=record.config,
            params=trial.params,
            overrides=overrides,
            experiment=experiment,
            attempt=record.attempt,
            lineage=_lineage(root, trial.number, self.study.get_trials(deepcopy=False)),
            revived=record.no_prune,
            report=attempt.report,
            should_stop=attempt.should_stop,
            attrs=attrs,
            set_attr=attempt.set_attr,
            leave_now=attempt.leave_now,
            is_mine=lease.check,
        )
        try:
            outcome = self.objective(context)
        except UpdateFinishedTrialError:
            lease.give_up()
            return Outcome("INTERRUPTED", None, LOST)
        except (StorageInternalError, sa.exc.DBAPIError):
            raise  # the study's database is away: no fault of the trial, which is queued again when it is back
        except MemoryError as error:
            return Outcome("FAILED", None, f"oom: {error}")
        except Exception as error:
            if is_disk_full(error):
                return Outcome("INTERRUPTED", None, f"disk full: {error}")
            if isinstance(error, UserError) and not isinstance(error, ConfigError):
                self._give_back(trial, "error", error)  # nothing that another configuration would escape
                raise
            log.exception("trial %d failed", trial.number)
            lines = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
            return Outcome("FAILED", None, f"error: {type(error).__name__}: {error}", attrs=attributes(traceback=lines))
        if outcome.state == "COMPLETE" and (outcome.value is None or not math.isfinite(outcome.value)):
            return Outcome("FAILED", None, f"diverged: {self.work.metric} is {outcome.value}", attrs=outcome.attrs)
        if outcome.state == "PRUNED" and not outcome.reason:
            outcome.reason = attempt.pruned or "pruned"
        return outcome

    def _tell(self, trial: optuna.Trial, lease: Lease, outcome: Outcome) -> str:
        if lease.lost or not lease.check():
            log.warning("trial %d was given to another worker while this one was stopped: left to it", trial.number)
            return "LOST"
        if outcome.state == "INTERRUPTED":
            reason = outcome.reason.removeprefix("interrupted").lstrip(": ") or self.stop.reason() or "interrupted"
            self.disk_full = reason if reason.startswith("disk full") else ""
            return "INTERRUPTED" if self._until_free(lambda: self.queue.interrupt(trial, reason)) else "LOST"
        state, value = {
            "COMPLETE": (TrialState.COMPLETE, outcome.value),
            "PRUNED": (TrialState.PRUNED, None),
            "FAILED": (TrialState.FAIL, None),
        }[outcome.state]
        figures = {k: v for k, v in (("metrics", outcome.metrics), ("last", outcome.last)) if v}
        how = FAILED if state == TrialState.FAIL else outcome.state.lower()
        ended = attributes(outcome=how, reason=_short(outcome.reason), **figures)
        attrs = {**ended, **{k: plain(v) for k, v in outcome.attrs.items()}}

        def tell() -> str:
            try:
                for key, content in attrs.items():
                    trial.set_user_attr(key, content)
                self.study.tell(trial, value, state=state)
            except UpdateFinishedTrialError:
                return "LOST"
            except ValueError as error:
                if "Cannot tell a" not in str(error):
                    raise
                return "LOST"
            return outcome.state

        return patiently(tell)

    def _until_free(self, call: Callable[[], bool]) -> bool:
        while True:
            try:
                return patiently(call)
            except LockBusy as error:
                log.warning("%s: waiting", error)


class _Attempt:
    """What an objective may ask and tell while it runs."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, lease: Lease, stop: StopRequest) -> None:
        self.study = study
        self.trial = trial
        self.lease = lease
        self.stop = stop
        frozen = study._storage.get_trial(trial._trial_id)
        self.reported = set(frozen.intermediate_values)
        # The predecessor may have died between its report and the decision: it is taken now, before another epoch is spent.
        self.pruned: str | None = self._decide() if self.reported else None

    def report(self, epoch: int, value: float) -> None:
        if epoch in self.reported or self.pruned or self.lease.lost:
            return
        try:
            patiently(lambda: self.trial.report(value, epoch))
        except UpdateFinishedTrialError:
            self.lease.give_up()
            return
        self.reported.add(epoch)

    def should_stop(self) -> str | None:
        if not self.lease.check():
            return LOST
        if self.pruned is None and self.reported:
            self.pruned = self._decide()
        if self.pruned:
            return self.pruned
        reason = self.stop.reason()
        return f"interrupted: {reason}" if reason else None

    def leave_now(self) -> str | None:
        if self.lease.lost:
            return LOST
        reason = self.stop.overdue()
        return f"interrupted: {reason}" if reason else None

    def set_attr(self, key: str, value: Any) -> None:
        try:
            patiently(lambda: self.trial.set_user_attr(key, plain(value)))
        except UpdateFinishedTrialError:
            self.lease.give_up()

    def _decide(self) -> str | None:
        def ask() -> str | None:
            frozen: FrozenTrial = self.study._storage.get_trial(self.trial._trial_id)
            pruner = self.study.pruner
            if not pruner.prune(self.study, frozen):
                return None
            explain = getattr(pruner, "explain", None)  # only ours say why
            return f"pruned: {explain(self.study, frozen)}" if explain else "pruned"

        return patiently(ask)


def _lineage(root: int, number: int, trials: list[FrozenTrial]) -> tuple[int, ...]:
    """Return the earlier attempts at a trial's configuration, newest first."""
    return tuple(t.number for t in reversed(trials) if root_of(t) == root and t.number < number)


def _short(text: str) -> str:
    return text if len(text) <= 1000 else f"{text[:997]}..."
