"""Which configuration is run next, and by whom: each index once, whoever was killed on the way.

A *configuration* is an index k of the study. Its sampler draws from (seed, k), so that what k is does not depend on trial
numbers. A trial is one attempt at a configuration; an interrupted attempt is FAIL in Optuna, and its successor a WAITING
copy with parameters, curve and attributes. Everything here that decides happens under the study's lock.

What each attempt carries is a `record.TrialRecord`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from audio_cls.core.errors import UserError
from audio_cls.queue.lease import is_dead
from audio_cls.queue.record import (
    ABANDONED,
    FAILED,
    INTERRUPTED,
    OF_ONE_ATTEMPT,
    TrialRecord,
    attributes,
    config_of,
    is_begun,
    is_finished,
    record_of,
    root_of,
)
from audio_cls.queue.storage import StudyStorage

__all__ = ["Queue", "Tally"]

log = logging.getLogger(__name__)

LIVE = (TrialState.RUNNING, TrialState.WAITING)
_OF_OPTUNA = ("tpe:", "constraints", "artifacts:", "hb:")  # a stale constraint, once copied, could not be set again


def _moved(trial: FrozenTrial) -> bool:
    """Whether an attempt finished an epoch that the one before had not."""
    return len(trial.intermediate_values) > record_of(trial).inherited_epochs


@dataclass(frozen=True)
class Tally:
    """The configurations of a study, each by its latest attempt; trials of others that have no index stand apart."""

    latest: dict[int, FrozenTrial] = field(default_factory=dict)
    others: tuple[FrozenTrial, ...] = ()

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial]) -> Tally:
        latest: dict[int, FrozenTrial] = {}
        others = []
        for trial in sorted(trials, key=lambda t: t.number):
            config = config_of(trial)
            if config is None:
                others.append(trial)
            elif trial.state != TrialState.FAIL or (
                record_of(trial).outcome != ABANDONED and (is_begun(trial) or is_finished(trial))
            ):  # a trial that died before its parameters were drawn does not own its index
                latest[config] = trial
        return cls(latest, tuple(others))

    @property
    def finished(self) -> list[FrozenTrial]:
        return [t for t in self.latest.values() if is_finished(t)]

    @property
    def live(self) -> list[FrozenTrial]:
        return [t for t in self.latest.values() if t.state in LIVE]

    @property
    def waiting(self) -> list[FrozenTrial]:
        everything = (*self.latest.values(), *self.others)
        return sorted((t for t in everything if t.state == TrialState.WAITING), key=lambda t: t.number)

    @property
    def next_index(self) -> int:
        """The smallest index that no trial owns."""
        k = 0
        while k in self.latest:
            k += 1
        return k


class Queue:
    """One worker's hand in the queue of a study; a process claims through one of them.

    A configuration whose worker died `max_deaths` times in a row without a new epoch has failed (it would otherwise kill
    worker after worker). A RUNNING trial that somebody else asked for, without heartbeat, is given up after `foreign_hours`.
    Unless configurations are `drawn`, they are those that were enqueued, and are taken in their order.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: StudyStorage,
        worker: str,
        *,
        max_deaths: int = 6,
        foreign_hours: float = 24.0,
        drawn: bool = True,
    ) -> None:
        self.study = study
        self.storage = storage
        self.worker = worker
        self.max_deaths = max_deaths
        self.foreign_hours = foreign_hours
        self.drawn = drawn
        self._mine: set[int] = set()

    def tally(self) -> Tally:
        return Tally.of(self.study.get_trials(deepcopy=False))

    def tidy(self) -> Tally:
        """Give dead workers' trials back to the queue. Raises `LockBusy`."""
        with self.storage.lock(self.study.study_name):
            return self._tidy()

    def claim(self, total: int, only: Collection[int] | None = None) -> tuple[optuna.Trial | None, Tally]:
        """Return the next trial to run, now ours, or None when `total` configurations are finished or in other hands.

        Interrupted, revived and user-enqueued trials come first; then fresh configurations up to `total`, counting live ones.
        With `only` (indices of configurations) whatever waits of these is taken, and nothing else, whatever the total. So it is
        with all configurations where none is drawn.

        Raises:
            LockBusy: when the study's lock was not had in time.
        """
        with self.storage.lock(self.study.study_name):
            tally = self._tidy()
            if only is not None or not self.drawn:
                return self._take(tally, only), self.tally()
            if len(tally.finished) + len(tally.live) > total:
                tally = self._withdraw(tally, total)
            if not tally.waiting:
                if len(tally.finished) + len(tally.live) >= total:
                    return None, tally
                self.study.add_trial(
                    create_trial(state=TrialState.WAITING, user_attrs=attributes(config=tally.next_index))
                )
                tally = self.tally()
            # Claimed first, popped second: whatever dies between the two, no running trial is without a known worker.
            first = tally.waiting[0]
            self._sign(
                first.user_attrs, tally, lambda k, v: self.study._storage.set_trial_user_attr(first._trial_id, k, v)
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Heartbeat of storage")  # ours beats by itself
                trial = self.study.ask()
            self._sign(
                trial.user_attrs, tally, trial.set_user_attr
            )  # somebody's `optuna ask` may have taken the signed one
            self._mine.add(trial._trial_id)
            return trial, self.tally()

    def release(self, trial: optuna.Trial) -> None:
        """This worker no longer runs a trial."""
        self._mine.discard(trial._trial_id)

    def interrupt(self, trial: optuna.Trial, reason: str) -> bool:
        """End an attempt that shall continue later; False when the trial is no longer ours. Raises `LockBusy`."""
        with self.storage.lock(self.study.study_name):
            ended = self._fail(trial._trial_id, outcome=INTERRUPTED, reason=reason)
            self._heal()
        return ended

    def abandon(self, trial: optuna.Trial, reason: str) -> bool:
        """End an attempt whose parameters were not all drawn; its index is free again. Raises `LockBusy`."""
        with self.storage.lock(self.study.study_name):
            return self._fail(trial._trial_id, outcome=ABANDONED, reason=reason)

    def requeue(
        self, number: int, reason: str, *, no_prune: bool = False, attrs: Mapping[str, Any] | None = None
    ) -> int | None:
        """Queue a finished trial again, for its next attempt; the number of the copy, or None when it has one already.

        `no_prune` exempts the copy from pruning (a revival). Raises `LockBusy`.
        """
        with self.storage.lock(self.study.study_name):
            trials = self.study.get_trials(deepcopy=False)
            original = next((t for t in trials if t.number == number), None)
            if original is None:
                raise UserError(f"study {self.study.study_name!r} has no trial {number}: it has 0 to {len(trials) - 1}")
            again = [t for t in trials if record_of(t).resumed_from == number]
            if not original.state.is_finished() or any(t.state != TrialState.FAIL for t in again):
                return None
            extra = attributes(no_prune=True, revived=True) if no_prune else {}
            return self._copy(original, reason, {**attributes(deaths=0), **extra, **(attrs or {})})

    # -- all below: under the lock ----------------------------------------------------------------------------------

    def _take(self, tally: Tally, only: Collection[int] | None) -> optuna.Trial | None:
        """Claim the first waiting trial of some configurations, or of all, past any other in the queue."""
        backend = self.study._storage
        waiting = [t for k, t in sorted(tally.latest.items()) if t.state == TrialState.WAITING]
        if self.drawn:
            waiting.sort(key=lambda t: t.number)
        for first in (t for t in waiting if only is None or config_of(t) in only):
            self._sign(first.user_attrs, tally, partial(backend.set_trial_user_attr, first._trial_id))
            if backend.set_trial_state_values(first._trial_id, TrialState.RUNNING):  # False: somebody's `optuna ask`
                self._mine.add(first._trial_id)
                return optuna.Trial(self.study, first._trial_id)
        return None

    def _sign(self, attrs: Mapping[str, Any], tally: Tally, set_attr: Callable[[str, Any], None]) -> None:
        record = TrialRecord.of(attrs)
        missing = attributes(config=tally.next_index) if record.config is None else {}
        missing |= attributes(worker=self.worker) if record.worker != self.worker else {}
        for key, value in missing.items():
            set_attr(key, value)

    def _tidy(self) -> Tally:
        running = [
            t
            for t in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if t._trial_id not in self._mine
        ]
        if running:
            silent = set(self.storage.backend._get_stale_trial_ids(self.study._study_id))
            for trial in running:
                if why := self._death_of(trial, silent):
                    self._bury(trial, why)
        return self._heal()

    def _death_of(self, trial: FrozenTrial, silent: set[int]) -> str | None:
        """Return why a RUNNING trial has no living worker; None when it has, or may have."""
        worker = record_of(trial).worker
        age = time.time() - trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        if worker is not None:
            dead = worker == self.worker or is_dead(worker)
            if dead:
                return "its worker died"
            # Without any beat: it died, on another machine, between taking the trial and its first beat.
            beatless = dead is None and age > 2 * self.storage.heartbeat.grace and not self._has_beat(trial)
            return "its worker fell silent" if trial._trial_id in silent or beatless else None
        if trial._trial_id in silent:
            return "its worker fell silent"
        if age > self.foreign_hours * 3600 and not self._has_beat(trial):
            log.warning(
                "trial %d was started elsewhere %.0f hours ago and never told: given up", trial.number, age / 3600
            )
            return f"started elsewhere and not told for {self.foreign_hours:g} hours"
        return None

    def _has_beat(self, trial: FrozenTrial) -> bool:
        query = sa.text("select count(*) from trial_heartbeats where trial_id = :trial")
        with self.storage.backend.engine.connect() as connection:
            return bool(connection.scalar(query, {"trial": trial._trial_id}))

    def _bury(self, trial: FrozenTrial, why: str) -> None:
        if config_of(trial) is None:
            self._fail(trial._trial_id, outcome=FAILED, reason=f"abandoned: {why}")
        elif not is_begun(trial):
            self._fail(trial._trial_id, outcome=ABANDONED, reason=why)
        else:
            deaths = 0 if _moved(trial) else record_of(trial).deaths + 1
            if deaths >= self.max_deaths:
                self._fail(
                    trial._trial_id,
                    outcome=FAILED,
                    reason=f"killed: {why}, {deaths} times in a row without finishing an epoch",
                )
            else:
                self._fail(trial._trial_id, outcome=INTERRUPTED, reason=why, deaths=deaths)
        log.warning("trial %d: %s", trial.number, why)

    def _fail(self, trial_id: int, **attrs: Any) -> bool:
        """Attributes, then the state: a trial that has ended takes no attribute. False when somebody else ended it."""
        backend = self.study._storage
        try:
            for key, value in attributes(**attrs).items():
                backend.set_trial_user_attr(trial_id, key, value)
            return backend.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False

    def _heal(self) -> Tally:
        """Give every configuration whose latest attempt was cut short its successor, whoever should have done so."""
        tally = self.tally()
        cut_short = [t for t in tally.latest.values() if t.state == TrialState.FAIL and not is_finished(t)]
        for trial in sorted(cut_short, key=lambda t: t.number):
            self._copy(trial, record_of(trial).reason or "it was failed from outside")
        return self.tally() if cut_short else tally

    def _copy(self, trial: FrozenTrial, reason: str, extra: Mapping[str, Any] | None = None) -> int:
        trial = self.storage.backend.get_trial(trial._trial_id)  # not as cached: the choices of an arm may have grown
        before = record_of(trial)
        attrs = {k: v for k, v in trial.user_attrs.items() if k not in OF_ONE_ATTEMPT}
        attrs |= attributes(
            resumed_from=trial.number,
            root_trial=root_of(trial),
            attempt=before.attempt + 1,
            resume_reason=reason,
            inherited_epochs=len(trial.intermediate_values),
            deaths=0 if _moved(trial) else before.deaths,
        )
        attrs |= extra or {}
        system = {k: v for k, v in trial.system_attrs.items() if not k.startswith(_OF_OPTUNA)}
        drawn: dict[str, Any] = {"params": trial.params, "distributions": trial.distributions}
        if any(not d._contains(d.to_internal_repr(trial.params[k])) for k, d in trial.distributions.items()):
            # Enqueued with a value outside the space: Optuna runs it, but refuses it as a template.
            drawn, system = {}, {**system, "fixed_params": trial.params}
        copy = create_trial(
            state=TrialState.WAITING,
            user_attrs=attrs,
            system_attrs=system,
            intermediate_values=trial.intermediate_values,
            **drawn,
        )
        self.study.add_trial(copy)
        return max(t.number for t in self.study.get_trials(deepcopy=False) if record_of(t).resumed_from == trial.number)

    def _withdraw(self, tally: Tally, total: int) -> Tally:
        """Take back fresh configurations that nobody started, when `total` was lowered."""
        surplus = len(tally.finished) + len(tally.live) - total
        fresh = [t for t in tally.waiting if config_of(t) is not None and not is_begun(t)]
        for trial in fresh[::-1][:surplus]:
            self._fail(trial._trial_id, outcome=ABANDONED, reason="withdrawn: the total was reached")
        return self.tally() if fresh else tally
