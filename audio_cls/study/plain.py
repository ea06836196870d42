"""An objective for a plain `optuna.Study`: every trial is tracked in MLflow, checkpointed, and can be pruned.

>>> import audio_cls as ac, optuna
>>> base = ac.Experiment().override({"data.corpus": "sounds", "training.epochs": 2})
>>> def space(trial):
...     return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
>>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
>>> study.optimize(ac.objective(base, space), n_trials=2)
>>> [trial.state.name for trial in study.trials]
['COMPLETE', 'COMPLETE']
>>> ac.open_run(study.best_trial.user_attrs["mlflow_run_id"]).state
'COMPLETE'
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna

from audio_cls.core.device import choose_device, tune_process
from audio_cls.core.disk import DiskFull
from audio_cls.core.errors import ConfigError, RunFailed, UserError
from audio_cls.core.loading import reach_run
from audio_cls.core.locks import LockBusy, file_lock
from audio_cls.core.names import LONGEST_NAME
from audio_cls.core.stopping import StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import check_metric
from audio_cls.runs.objective import Outcome, Record, run_experiment
from audio_cls.runs.preparation import Runtime, dataset_info, mlflow_experiment
from audio_cls.runs.single import run_key
from audio_cls.study.declaration import TRAINING, Study
from audio_cls.study.losses import check_losses
from audio_cls.study.search import settle_study
from audio_cls.tracking import Run, Tracker
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.rules import FORMER, RULES

__all__ = ["objective"]

log = logging.getLogger(__name__)
RUN = "mlflow_run_id"  # user attribute: of the study its own run, of a trial its run


def objective(
    base: Experiment,
    space: Callable[[optuna.Trial], Mapping[str, Any]],
    *,
    workspace: Workspace | Path | str | None = None,
    device: str = "auto",
    grace: float = 60.0,
) -> Callable[[optuna.Trial], float]:
    """Make an objective for `optuna.Study.optimize`, with any sampler, pruner, storage and callback of Optuna's.

    A trial trains `base` with the dotted keys that `space(trial)` returns, reports `base.training.metric` after each epoch, and
    is recorded in MLflow below the study's run (user attribute `mlflow_run_id` of the study and of the trial). A configuration
    that was interrupted continues from its checkpoint when a trial has its parameters again (`enqueue_trial`, Optuna's
    `RetryHeartbeatStaleTrialCallback`). Use one process for each device: with `n_jobs` above 1 the trials of this process run one
    after the other. `ac.Study` adds workers, takeover of dead processes, and revival of pruned trials.

    Args:
        base: what all trials share.
        space: suggests parameters, and returns the dotted keys in which a trial differs from `base`.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        grace: seconds to finish an epoch in after Ctrl-C.

    Raises (when a trial is run):
        UserError: for a study whose direction is not the metric's, a base or a configuration that cannot be built.
        RunFailed: when training failed; with `catch=(ac.RunFailed,)` Optuna continues with the next trial.
        KeyboardInterrupt: after Ctrl-C, once the epoch is finished.
    """
    if not isinstance(base, Experiment):
        raise ConfigError(f"ac.objective: base must be an Experiment, found {type(base).__name__}")
    if not callable(space):
        raise ConfigError(f"ac.objective: space must be a function of the trial, found {type(space).__name__}")
    base.check()
    reach_run()
    return _PlainObjective(base, space, Workspace.of(workspace), device, grace)


class _PlainObjective:
    def __init__(
        self, base: Experiment, space: Callable[..., Any], workspace: Workspace, device: str, grace: float
    ) -> None:
        self._base, self._space = base, space
        self._workspace, self._device, self._grace = workspace, device, grace
        self._runtime: Runtime | None = None
        self._one_at_a_time = threading.Lock()

    def __call__(self, trial: optuna.Trial) -> float:
        if not self._one_at_a_time.acquire(blocking=False):
            log.warning("n_jobs above 1: the trials of one process share its device and run one after the other")
            self._one_at_a_time.acquire()
        try:
            return self._run(trial)
        finally:
            self._one_at_a_time.release()

    def _run(self, trial: optuna.Trial) -> float:
        _check_direction(trial.study, self._base.training.metric)
        runtime = self._warm_runtime()
        declared = self._declared(trial.study, runtime)
        if RUN not in trial.study.user_attrs:
            check_losses(declared)
        experiment = declared.experiment(declared.overrides(trial))
        assert isinstance(experiment, Experiment)
        trial.set_user_attr("experiment", experiment.to_json(None))
        parent = self._open_parent(trial.study, declared, runtime)
        corpus = runtime.corpus(experiment.data)
        key = run_key(experiment.digest(), corpus.digest)
        record = Record(
            name=f"{declared.name} {trial.number:03d}",
            kind="trial",
            parent=parent.id,
            run_id=trial.user_attrs.get(RUN),
            tags={
                "study": declared.name,
                "trial": str(trial.number),
                **{f"suggested.{k}": str(v) for k, v in trial.params.items()},
            },
            on_run_id=lambda run_id: trial.set_user_attr(RUN, run_id),
            rules=int(trial.study.user_attrs.get(TRAINING, FORMER)),
        )
        with _own_folder(self._workspace.checkpoints / "trials" / key, trial) as folder:
            outcome = self._train(experiment, runtime, record, folder, trial)
        self._record_end(parent, trial, outcome, declared)
        return _as_optuna_has_it(trial, outcome)

    def _train(
        self, experiment: Experiment, runtime: Runtime, record: Record, folder: Path, trial: optuna.Trial
    ) -> Outcome:
        with StopRequest(grace=self._grace) as stop:
            runtime.watch = Watch(stop)

            def should_stop() -> str | None:
                return "pruned" if trial.should_prune() else runtime.watch.should_stop()

            return run_experiment(
                experiment,
                runtime,
                record,
                CheckpointStore(folder),
                report=lambda epoch, value: trial.report(value, epoch),
                should_stop=should_stop,
                leave_now=runtime.watch.leave_now,
            )

    def _warm_runtime(self) -> Runtime:
        """Corpora, features and the tracker, kept from one trial to the next."""
        if self._runtime is None:
            tune_process()
            self._runtime = Runtime(self._workspace, Tracker(self._workspace), choose_device(self._device))
        return self._runtime

    def _declared(self, study: optuna.Study, runtime: Runtime) -> Study:
        """The search as a declaration of ours, settled on its corpus."""
        metric = self._base.training.metric
        declared = Study(_name(study), self._base, self._space, metric, check_metric(metric))
        return settle_study(declared, runtime.corpus(self._base.data), None)

    def _open_parent(self, study: optuna.Study, declared: Study, runtime: Runtime) -> Run:
        """The study's own run in MLflow, below which its trials are."""
        corpus, base = runtime.corpus(self._base.data), declared.base
        with self._workspace.lock(f"objective-{declared.name}"):
            known = study.user_attrs.get(RUN)
            run = runtime.tracker.on(None if known else dataset_info(corpus)).start(
                mlflow_experiment(corpus),
                f"study {declared.name}",
                kind="study",
                params=None if known else base.flatten(),
                tags={
                    "study": declared.name,
                    "study.metric": declared.metric,
                    "study.direction": declared.direction,
                    "study.sampler": type(study.sampler).__name__,
                    "study.pruner": type(study.pruner).__name__,
                    "data.digest": corpus.digest,
                },
                run_id=known,
            )
            if known != run.id:
                study.set_user_attr(RUN, run.id)
            if known is None:
                study.set_user_attr(TRAINING, RULES)
        return run

    def _record_end(self, parent: Run, trial: optuna.Trial, outcome: Outcome, declared: Study) -> None:
        complete = trial.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        ended = [(t.value, t.user_attrs.get("collapsed")) for t in complete]
        ended += [(outcome.value, outcome.attrs.get("collapsed"))] if outcome.state == "COMPLETE" else []
        known = [(value, collapsed) for value, collapsed in ended if value is not None]
        sound = [value for value, collapsed in known if "best" not in (collapsed or {})]
        values = sound or [value for value, _ in known]
        if values:
            best = max(values) if declared.direction == "maximize" else min(values)
            parent.final({f"best/{declared.metric.removeprefix('val/')}": best, "final/complete": float(len(known))})
        parent.finish("COMPLETE")


def _check_direction(study: optuna.Study, metric: str) -> None:
    wanted = check_metric(metric)
    if len(study.directions) > 1:
        raise UserError(
            f"ac.objective has one value, training.metric={metric}; the study {study.study_name!r} has "
            f"{len(study.directions)} directions"
        )
    if study.direction.name.lower() != wanted:
        raise UserError(
            f"ac.objective: training.metric={metric} is better when it is {'larger' if wanted == 'maximize' else 'smaller'}, but "
            f"the study {study.study_name!r} has direction={study.direction.name.lower()!r}: "
            f"optuna.create_study(direction={wanted!r})"
        )


def _name(study: optuna.Study) -> str:
    """The study's name as tags and folders can hold it."""
    return re.sub(r"[^\w.+-]+", "-", study.study_name)[:LONGEST_NAME].strip("-._+") or "study"


@contextmanager
def _own_folder(folder: Path, trial: optuna.Trial) -> Iterator[Path]:
    """The folder of a configuration's checkpoints; another one while a trial of another process has the same configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / "claim.lock", timeout=0.0))
        except LockBusy:
            folder = folder / f"{_name(trial.study)}-{trial.number}"
        yield folder


def _as_optuna_has_it(trial: optuna.Trial, outcome: Outcome) -> float:
    """The value of a complete trial; else what Optuna expects to be raised."""
    run_id = str(trial.user_attrs.get(RUN, ""))
    trial.set_user_attr("metrics", outcome.metrics)
    if collapsed := outcome.attrs.get("collapsed"):
        trial.set_user_attr("collapsed", collapsed)
    if outcome.state == "COMPLETE" and outcome.value is not None:
        return outcome.value
    if outcome.state == "PRUNED":
        raise optuna.TrialPruned(outcome.reason)
    if outcome.state == "FAILED":
        trial.set_user_attr("reason", outcome.reason)
        raise RunFailed(f"trial {trial.number}, run {run_id[:8]}: FAILED: {outcome.reason}", outcome.reason, run_id)
    if outcome.reason.startswith("disk full"):
        raise DiskFull(outcome.reason)
    raise KeyboardInterrupt(f"{outcome.reason}; a trial with the same parameters goes on from its checkpoint")
