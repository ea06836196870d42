"""One experiment from start to finish: build, train, record. Studies, ablations and single runs all come here.

A failure is an outcome: divergence, lack of memory, a fault in a user's model end the run as FAILED with a reason, and whoever
asked continues with the next one. Only a user's mistake that no later run could escape (an unknown corpus, say) is raised.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audio_cls.components.losses import splits_into_parts
from audio_cls.core.device import describe_device
from audio_cls.core.disk import DiskFull, is_disk_full
from audio_cls.core.errors import UserError
from audio_cls.core.notices import say
from audio_cls.core.stopping import Abandoned
from audio_cls.experiment import Experiment
from audio_cls.metrics.baselines import BASELINE, finite_figures
from audio_cls.runs.collapse import COLLAPSED, find_collapse, tell_collapse
from audio_cls.runs.failures import FAILURE, describe, write_traceback
from audio_cls.runs.guards import Caller, CallerFailed, PatientStore, TakenOver, out_of_memory
from audio_cls.runs.model_log import log_model
from audio_cls.runs.outcome import Outcome, State
from audio_cls.runs.own_parts import record_sources
from audio_cls.runs.preparation import (
    Prepared,
    Runtime,
    dataset_info,
    mlflow_experiment,
    prepare_run,
    run_facts,
    split_facts,
)
from audio_cls.runs.resolve import resolve
from audio_cls.runs.results import final_metrics, log_results, run_baseline
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.loop import FINISHED_AT, Diverged, Fit, fit
from audio_cls.training.rules import ACCUMULATED, FORMER, RULES

if TYPE_CHECKING:
    from audio_cls.tracking import Run

__all__ = ["Outcome", "Record", "run_experiment"]

SMALLEST_PART = 4  # clips: batches are not split further than this for want of memory


@dataclass(frozen=True)
class Record:
    """Where and under what name a run is recorded in MLflow. `run_id` continues with an earlier run; `on_run_id` is given the id
    before the run is made (a provisional one) and after, so that it is never without an owner, whoever dies in between.

    `params` join the experiment's own parameters. `rules` is the version of the training rules by which the study or list that the
    run belongs to was begun; a run that has a checkpoint goes on by its own. `log_model` logs the weights of a complete run as a model. `on_facts` is given, before training, what a comparison rests on: the tags of
    `run_facts`.
    """

    name: str
    kind: str = "run"
    parent: str | None = None
    run_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()
    on_run_id: Callable[[str], None] | None = None
    params: dict[str, str] = field(default_factory=dict)
    rules: int | None = None
    log_model: bool = False
    on_facts: Callable[[dict[str, str]], None] | None = None


def run_experiment(
    experiment: Experiment,
    runtime: Runtime,
    record: Record,
    store: CheckpointStore,
    *,
    report: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], str | None] | None = None,
    leave_now: Callable[[], str | None] | None = None,
    is_mine: Callable[[], bool] | None = None,
) -> Outcome:
    """Train one experiment (what it leaves to the data is resolved first) to its budget, continuing from `store`, recording it as `record` says.

    After each epoch `report(epoch, value)` is given the chosen metric and `should_stop()` is asked; its answer begins with
    `pruned` or `interrupted` (or anything else, which counts as interrupted). `leave_now()` is asked before each step: a
    reason ends the run there, INTERRUPTED, and costs the epoch. All other phases (features, evaluation, results) ask
    `runtime.watch`, and end the run INTERRUPTED as well. `is_mine()` is asked before anything is recorded: where it is
    False the run is INTERRUPTED, its record left as the process has it that took it over. What these raise is raised.

    For want of memory each batch is trained in parts whose gradients are added, twice as many each time: the same
    experiment, recorded in the tag `accumulate`, except that batch normalisation sees parts (see `fit`). For want of room
    on the disk the run waits for `runtime.disk_wait_seconds`, then is INTERRUPTED with the reason `disk full`; it continues
    from its last durable epoch when it is run again.

    Raises:
        UserError: when the experiment cannot be built.
    """
    experiment = resolve(experiment, runtime.corpus(experiment.data)).experiment
    caller = Caller(report, should_stop, leave_now, is_mine, record)
    patient = PatientStore(store, runtime.disk_wait_seconds, caller.should_stop)
    batch_size, accumulate, tried_again = experiment.training.batch_size, 1, False
    rules = _rules_of(store, record)
    run: Run | None = None
    while True:
        prepared: Prepared | None = None
        try:
            prepared = prepare_run(experiment, runtime, rules, resumes=lambda: store.load() is not None)
            caller.check_mine()
            if run is None:
                run = _open_run(experiment, prepared, runtime, caller)
                _tell_match(prepared, run)
            if accumulate > 1:
                run.tags({"accumulate": str(accumulate), **_accumulated_loss(prepared)})
            outcome = _train(experiment, prepared, run, record.name, patient, caller, accumulate)
            caller.check_mine()
            run.finish(outcome.state, outcome.reason)
            if run.lacks_room and outcome.state in ("COMPLETE", "PRUNED"):
                raise DiskFull("disk full: there was no room for the run's record")
            return outcome
        except Abandoned as left:
            run = run or _interrupted_before(runtime, record)
            if run is not None and caller.is_mine():
                run.finish("INTERRUPTED", str(left))
            return Outcome("INTERRUPTED", None, str(left))
        except TakenOver as taken:
            if run is not None:
                run.close()
            return Outcome("INTERRUPTED", None, str(taken))
        except CallerFailed as failed:
            if run is not None:
                run.close()
            if not is_disk_full(failed.error):
                raise failed.error from None
            return Outcome("INTERRUPTED", None, f"disk full: {failed.error}")
        except Exception as error:
            if is_disk_full(error):
                reason = str(error) if isinstance(error, DiskFull) else f"disk full: {error}"
                if run is not None:
                    run.finish("INTERRUPTED", reason)
                return Outcome("INTERRUPTED", None, reason)
            if isinstance(error, UserError):
                if run is not None:
                    run.finish("FAILED", "configuration")
                raise
            run = run or _open_run(experiment, None, runtime, caller)
            if isinstance(error, Diverged):
                return _fail(run, store, f"diverged: {error}", str(error))
            if not out_of_memory(error):
                return _fail(run, store, f"error: {describe(error)}", traceback.format_exc())
            if prepared is None and tried_again:
                return _fail(run, store, "oom", f"out of memory while the model and its data were made: {error}")
            if prepared is not None and batch_size // (accumulate * 2) < SMALLEST_PART:
                return _fail(
                    run, store, "oom", f"out of memory even with parts of {batch_size // accumulate} clips: {error}"
                )
        # Only here, past the handler, is the traceback gone that kept the whole chain in memory.
        if prepared is None:
            tried_again = True
        else:
            accumulate *= 2
            prepared = None
        _free_memory(runtime)


def _rules_of(store: CheckpointStore, record: Record) -> int:
    """Return the version of the training rules by which a run goes on or begins."""
    begun = store.begun_rules()
    if begun is not None:
        return begun
    return RULES if record.rules is None else record.rules


def _accumulated_loss(prepared: Prepared) -> dict[str, str]:
    """Return the tag that says how the gradients of a batch's parts are put together, with a warning where they cannot be."""
    if prepared.batches.rules == FORMER:
        return {}
    n_classes = len(prepared.corpus.classes)
    if splits_into_parts(prepared.chain.loss, n_classes, prepared.batches.device):
        return {ACCUMULATED: "as the whole batch"}
    kind = prepared.experiment.loss.kind
    say(
        f"warning: loss.kind={kind} is no mean over clips, and batches are trained in parts for want of memory: the gradient is not "
        "that of the whole batch. Give its module batch_weight(targets), or set a smaller training.batch_size",
        err=True,
    )
    return {ACCUMULATED: "by clips: not as the whole batch"}


def _train(
    experiment: Experiment,
    prepared: Prepared,
    run: Run,
    name: str,
    store: CheckpointStore,
    caller: Caller,
    accumulate: int,
) -> Outcome:
    """Fit, and record the result of it."""
    prepared.batches.parts = accumulate
    result = fit(
        experiment,
        prepared.chain,
        prepared.batches,
        store,
        _Observer(run, experiment.training.metric, caller),
        accumulate=accumulate,
        on_step=caller.on_step,
    )
    if store.refused:
        run.tags({"checkpoint.refused": "; ".join(store.refused)})
    best = (
        {k.split("/", 1)[1]: v for k, v in result.history[result.best_epoch].items() if k.startswith("val/")}
        if result.best_epoch >= 0
        else {}
    )
    outcome = _outcome(result, best)
    if accumulate > 1:
        outcome.attrs["accumulate"] = accumulate
    caller.check_mine()
    if outcome.state in ("COMPLETE", "PRUNED"):
        baseline = run_baseline(prepared)
        figures = final_metrics(result, best, prepared, finite_figures(baseline))
        outcome.attrs["cost"] = {k.split("/", 1)[1]: v for k, v in figures.items() if k.startswith("final/")}
        outcome.attrs["baseline"] = {k.removeprefix(BASELINE): v for k, v in figures.items() if k.startswith(BASELINE)}
        run.final(figures, result.history[-1].get(FINISHED_AT))
    if outcome.state == "COMPLETE":
        collapsed = find_collapse(result)
        if collapsed:
            outcome.attrs["collapsed"] = collapsed
            run.tags({COLLAPSED: tell_collapse(collapsed)})
        lines = log_results(run, name, prepared, result, store, baseline, tell_collapse(collapsed))
        outcome.attrs["findings"] = list(lines)
        if caller.record.log_model:
            _log_model(run, name, prepared, figures, {**caller.record.tags, "findings": " ".join(lines)})
    return outcome


def _log_model(run: Run, name: str, prepared: Prepared, figures: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Log the run's weights as a model in MLflow."""
    corpus = prepared.corpus
    known = {**split_facts(prepared.experiment, corpus, prepared.split), "data.digest": corpus.digest, **tags}
    log_model(run, name, prepared.experiment.flatten(), figures, known, corpus.classes, corpus.task)


def _interrupted_before(runtime: Runtime, record: Record) -> Run | None:
    """Return the run of an earlier attempt, which may still be recorded as running; None if there is none."""
    from audio_cls.tracking.sender import LOCAL

    if record.run_id is None or record.run_id.startswith(LOCAL):
        return None
    return runtime.tracker.reopen(record.run_id)


def _free_memory(runtime: Runtime) -> None:
    runtime.features.shrink()
    gc.collect()
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Observer:
    """Passes each epoch on: first to the tracker, then to whoever decides."""

    run: Run
    metric: str
    caller: Caller

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        self.caller.check_mine()
        self.run.epoch(epoch, {k: v for k, v in row.items() if k != FINISHED_AT}, row.get(FINISHED_AT))
        if self.caller.report:
            self.caller.report(epoch, row[self.metric])

    def should_stop(self) -> str | None:
        return self.caller.should_stop()


def _outcome(result: Fit, best: dict[str, float]) -> Outcome:
    attrs = {"best_epoch": result.best_epoch, "epochs": len(result.history)}
    if result.stopped and not result.stopped.startswith("pruned"):
        return Outcome("INTERRUPTED", None, result.stopped, attrs=attrs)
    if result.best_epoch < 0:
        return Outcome("FAILED", None, "diverged: the chosen metric was never finite", attrs=attrs)
    state: State = "PRUNED" if result.stopped else "COMPLETE"
    last = {k.split("/", 1)[1]: v for k, v in result.history[-1].items() if k.startswith("val/")}
    return Outcome(state, result.best_value, result.stopped or "", metrics=best, last=last, attrs=attrs)


def _open_run(experiment: Experiment, prepared: Prepared | None, runtime: Runtime, caller: Caller) -> Run:
    """Open the run in MLflow; `prepared` is None for one that could not even be built."""
    from audio_cls.tracking import environment_tags

    corpus, device, record = runtime.corpus(experiment.data), runtime.device, caller.record
    facts = run_facts(prepared, device) if prepared else {"experiment.digest": experiment.digest()}
    if record.on_facts:
        record.on_facts(facts)
    run_id = record.run_id
    if run_id is None and record.on_run_id:
        record.on_run_id(run_id := runtime.tracker.new_id())
    tags = {**facts, "device": describe_device(device), **environment_tags(), **record.tags}
    run = (
        runtime.tracker.on(dataset_info(corpus))
        .guarded(caller.is_mine)
        .start(
            mlflow_experiment(corpus),
            record.name,
            parent=record.parent,
            kind=record.kind,
            params={**experiment.flatten(), **_match_params(prepared), **record.params},
            tags=tags,
            run_id=run_id,
        )
    )
    if record.on_run_id:
        record.on_run_id(run.id)
    # Also of a run that continues: whoever started it may have died before these were there, and a revived one may continue as another
    # experiment (a larger budget), while parameters in MLflow cannot be changed.
    run.artifact_text("experiment.json", experiment.to_json())
    record_sources(experiment, run, runtime.workspace, record.sources)
    return run


def _match_params(prepared: Prepared | None) -> dict[str, str]:
    return prepared.match.params() if prepared is not None and prepared.match is not None else {}


def _tell_match(prepared: Prepared, run: Run) -> None:
    """Say and record how a file of pretrained weights fits the model."""
    match, weights = prepared.match, prepared.experiment.model.weights
    if match is None:
        return
    where = getattr(weights, "file", None) or "the workspace's copy"
    say(f"pretrained weights ({where}, model.weights={weights.kind}):\n  " + "\n  ".join(match.lines()))
    run.artifact_text("pretrained_weights.csv", match.csv())


def _fail(run: Run, store: CheckpointStore, reason: str, detail: str) -> Outcome:
    run.artifact_text(FAILURE, detail)
    run.finish("FAILED", reason)
    path = write_traceback(store.folder, detail)
    attrs: dict[str, Any] = {"traceback": detail[-4000:]}
    return Outcome("FAILED", None, reason, attrs=attrs | ({"failure": str(path)} if path else {}))
