"""A worker: takes trials from a study's queue, runs the objective, tells how they ended; leaves when the total is reached."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import traceback
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
from audio_cls.core.stopping import GRACE_SECONDS, StopRequest
from audio_cls.queue.lease import Lease, worker_identity
from audio_cls.queue.queue import FAILED, Queue, Tally
from audio_cls.queue.seam import Objective, Outcome, TrialContext, TrialOutcome
from audio_cls.queue.storage import Heartbeat, LockBusy, StudyStorage, open_storage, open_study, patiently
from audio_cls.study.declaration import Study, load_study_file
from audio_cls.study.pruners import RevivablePruner
from audio_cls.study.samplers import root_of

__all__ = ["Outcome", "RepeatedFailure", "TrialContext", "WorkerReport", "reason_kind", "run_worker"]

log = logging.getLogger(__name__)

DATABASE = "optuna.db"  # in the workspace
TOTAL = "total"  # the study attribute that holds the total last asked for
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
    """What failures are told apart by: `oom: 3 GiB ...` is `oom`, `error: ValueError: ...` is `error: ValueError`."""
    parts = [part.strip() for part in reason.split(":")]
    return ": ".join(parts[:2]) if parts[0] == "error" and len(parts) > 1 else parts[0]


def run_worker(
    study: Study | Path,
    workspace: Path,
    total: int,
    objective: Objective,
    *,
    storage: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    supervisor: int | None = None,
    since: float | None = None,
    same_failures: int = 5,
    heartbeat: Heartbeat | None = None,
    poll_seconds: float = 1.0,
    max_deaths: int = 6,
    foreign_hours: float = 24.0,
    grace_seconds: float = GRACE_SECONDS,
    only: Collection[int] | None = None,
    stop: StopRequest | None = None,
) -> WorkerReport:
    """Run trials until `total` configurations of the study are finished, or until asked to leave; then the epoch under way
    is finished, or given up after `grace_seconds`.

    `stop` is a request that the caller has entered already; `supervisor` and `grace_seconds` are then its own.

    `storage` is `optuna.db` in the workspace unless given. `identity` joins the study's identity. With `supervisor` (a
    process id) the worker leaves when that process ends. Failures before `since` (seconds since the epoch; now unless given)
    do not count towards `same_failures`.

    With `only`, the worker runs what waits of these configurations (indices) and leaves when they are finished; the study's
    total stays what it was.

    Raises:
        UserError: when the study cannot be opened, its space fails or gives keys that do not hold.
        DiskFull: when there was no room for a checkpoint, or in the database; the trial goes on when the study does.
        RepeatedFailure: when the first `same_failures` trials since `since` all failed in the same way.
    """
    declaration = study if isinstance(study, Study) else load_study_file(study)[0]
    since = time.time() if since is None else since
    asked = contextlib.nullcontext(stop) if stop is not None else StopRequest(supervisor, grace_seconds)
    with asked as stop, _full_disk_told(workspace):
        opened = open_storage(storage or workspace / DATABASE, heartbeat=heartbeat)
        optuna_study = open_study(declaration, opened, extra=identity)
        if only is None and optuna_study.user_attrs.get(TOTAL) != total:
            optuna_study.set_user_attr(TOTAL, total)
        queue = Queue(optuna_study, opened, worker_identity(), max_deaths=max_deaths, foreign_hours=foreign_hours)
        worker = _Worker(declaration, optuna_study, opened, queue, objective, stop)
        ended: dict[str, int] = {}
        told = ""
        while (reason := stop.reason()) is None:
            trial, tally = worker.claim(total, only)
            if tally is None:
                continue
            if trial is None:
                if _reached(tally, total, only):
                    return WorkerReport("total reached", ended=ended)
                elsewhere = ", ".join(str(t.number) for t in tally.live)
                if elsewhere != told:
                    log.info("nothing left to begin: trials that others run: %s", elsewhere)
                    told = elsewhere
                stop.wait(poll_seconds)
                continue
            how = worker.run(trial)
            ended[how] = ended.get(how, 0) + 1
            if worker.disk_full:
                raise DiskFull(worker.disk_full)
            _refuse_repetition(queue.tally(), since, same_failures)
        return WorkerReport("interrupted", reason, ended)


@contextlib.contextmanager
def _full_disk_told(workspace: Path) -> Iterator[None]:
    """Leave with one clear message, in place of a database's traceback, when there is no room."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        said = str(error).removeprefix("disk full").lstrip(": ") if isinstance(error, DiskFull) else str(error)
        raise DiskFull(
            f"disk full: {said}. Nothing is lost: make room (the workspace is {workspace}) and run the same command again"
        ) from None


def _reached(tally: Tally, total: int, only: Collection[int] | None) -> bool:
    if only is None:
        return len(tally.finished) >= total
    return not any(t.user_attrs.get("config") in only for t in tally.live)


def _refuse_repetition(tally: Tally, since: float, limit: int) -> None:
    recent = [t for t in tally.finished if t.datetime_complete and t.datetime_complete.timestamp() >= since]
    kinds = {reason_kind(str(t.user_attrs.get("reason", ""))) if t.state == TrialState.FAIL else "" for t in recent}
    if len(recent) >= limit and len(kinds) == 1 and "" not in kinds:
        last = max(recent, key=lambda t: t.number)
        where = str(last.user_attrs.get("traceback", "")).strip()
        raise RepeatedFailure(
            f"the first {len(recent)} trials all failed in the same way: {last.user_attrs.get('reason')}. "
            "The study was stopped; mend the cause and run the same command again." + (f"\n{where}" if where else "")
        )


class _Worker:
    def __init__(
        self,
        declaration: Study,
        study: optuna.Study,
        storage: StudyStorage,
        queue: Queue,
        objective: Objective,
        stop: StopRequest,
    ) -> None:
        self.declaration = declaration
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
                overrides, experiment = self._draw(trial)
                outcome = self._attempt(trial, lease, overrides, experiment)
                return self._tell(trial, lease, outcome)
        finally:
            self.queue.release(trial)

    def _draw(self, trial: optuna.Trial) -> tuple[dict[str, Any], Component]:
        """Parameters and experiment; a mistake in the study's file costs no configuration."""
        try:
            overrides = {**self.declaration.overrides(trial), **trial.user_attrs.get("changes", {})}
            experiment = self.declaration.experiment(overrides)
            trial.set_user_attr("ready", True)
            return overrides, experiment
        except UserError as error:
            self._give_back(trial, f"space: {error}")
            raise

    def _give_back(self, trial: optuna.Trial, reason: str) -> None:
        """Leave an attempt to a later run: a new one as if it had never been, a resumed one as interrupted."""
        resumed = "resumed_from" in trial.user_attrs
        self._until_free(lambda: (self.queue.interrupt if resumed else self.queue.abandon)(trial, _short(reason)))

    def _attempt(
        self, trial: optuna.Trial, lease: Lease, overrides: dict[str, Any], experiment: Component
    ) -> TrialOutcome:
        attempt = _Attempt(self.study, trial, lease, self.stop)
        attrs = trial.user_attrs
        context = TrialContext(
            study=self.declaration.name,
            number=trial.number,
            root=int(attrs.get("root_trial", trial.number)),
            config_index=int(attrs["config"]),
            params=trial.params,
            overrides=overrides,
            experiment=experiment,
            attempt=int(attrs.get("attempt", 0)),
            resumed_from=attrs.get("resumed_from"),
            lineage=_lineage(trial, self.study.get_trials(deepcopy=False)),
            revived=bool(attrs.get("no_prune")),
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
                self._give_back(trial, f"error: {error}")  # nothing that another configuration would escape
                raise
            log.exception("trial %d failed", trial.number)
            lines = traceback.format_exc()[-TRACEBACK_CHARACTERS:]
            return Outcome("FAILED", None, f"error: {type(error).__name__}: {error}", {"traceback": lines})
        if outcome.state == "COMPLETE" and (outcome.value is None or not math.isfinite(outcome.value)):
            return Outcome("FAILED", None, f"diverged: {self.declaration.metric} is {outcome.value}", outcome.attrs)
        if outcome.state == "PRUNED" and not outcome.reason:
            return Outcome("PRUNED", outcome.value, attempt.pruned or "pruned", outcome.attrs)
        return outcome

    def _tell(self, trial: optuna.Trial, lease: Lease, outcome: TrialOutcome) -> str:
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
        attrs = {
            **outcome.attrs,
            "outcome": FAILED if state == TrialState.FAIL else outcome.state.lower(),
            "reason": _short(outcome.reason),
        }

        def tell() -> str:
            try:
                for key, content in attrs.items():
                    trial.set_user_attr(key, _plain(content))
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
            patiently(lambda: self.trial.set_user_attr(key, _plain(value)))
        except UpdateFinishedTrialError:
            self.lease.give_up()

    def _decide(self) -> str | None:
        def ask() -> str | None:
            frozen: FrozenTrial = self.study._storage.get_trial(self.trial._trial_id)
            pruner = self.study.pruner
            if not pruner.prune(self.study, frozen):
                return None
            return f"pruned: {pruner.explain(self.study, frozen)}" if isinstance(pruner, RevivablePruner) else "pruned"

        return patiently(ask)


def _lineage(trial: optuna.Trial, trials: list[FrozenTrial]) -> tuple[int, ...]:
    """The earlier attempts at a trial's configuration, newest first."""
    root = int(trial.user_attrs.get("root_trial", trial.number))
    return tuple(t.number for t in reversed(trials) if root_of(t) == root and t.number < trial.number)


def _short(text: str) -> str:
    return text if len(text) <= 1000 else f"{text[:997]}..."


def _plain(value: Any) -> Any:
    """As JSON, which is what a storage keeps: numbers of NumPy become Python's, what JSON does not know becomes text."""
    if hasattr(value, "item"):
        value = value.item()
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value
