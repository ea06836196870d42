"""What a trial runs: its experiment trained, continuing from the attempts before it, and recorded in MLflow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError
from audio_cls.queue.places import trial_folder
from audio_cls.queue.seam import TrialContext
from audio_cls.runs.outcome import Outcome, State

if TYPE_CHECKING:
    from audio_cls.runs.objective import Record
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

__all__ = ["run_tracked", "settle_runs"]

log = logging.getLogger(__name__)


def run_tracked(trial: TrialContext, runtime: Runtime, record: Record, former: Path | None = None) -> Outcome:
    """Train a trial's experiment and record it as `record` says; the trial's own record holds what others need to know of it.

    Args:
        former: the folder of a run of an earlier version, whose checkpoint is resumed where no attempt has one.
    """
    from audio_cls.experiment import Experiment
    from audio_cls.runs.objective import run_experiment
    from audio_cls.runs.own_parts import sources_of
    from audio_cls.training.checkpoint import CheckpointStore

    experiment, workspace = trial.experiment, runtime.workspace
    assert isinstance(experiment, Experiment)
    folders = [trial_folder(workspace, trial.study, trial.root, n) for n in (trial.number, *trial.lineage)]
    trial.note(
        experiment=experiment.to_json(None),
        overrides=dict(trial.overrides),
        folder=folders[0].relative_to(workspace.root).as_posix(),
    )
    if sources := [source.digest for source in sources_of(experiment)]:
        trial.note(sources=sources)
    begun = {digest: experiment.digest() for digest in trial.record.begun_as}
    outcome = run_experiment(
        experiment,
        runtime,
        record,
        CheckpointStore(folders[0], (*folders[1:], *([former] if former else ())), begun),
        report=trial.report,
        should_stop=trial.should_stop,
        leave_now=trial.leave_now,
        is_mine=trial.is_mine,
    )
    value = f"{experiment.training.metric} {outcome.value:.4f}" if outcome.value is not None else ""
    log.info(
        "trial %d (configuration %d): %s %s %s", trial.number, trial.config_index, outcome.state, value, outcome.reason
    )
    return outcome


def settle_runs(tracker: Tracker, experiment: str | None, study: Any, kind: str = "trial") -> int:
    """Correct the MLflow state of finished trials; `kind` is the tag of their runs. Returns the number corrected.

    A worker that is halted in the middle of a request, for so long that its trial was given to another one and finished, sends
    the rest of it when it wakes. What it recorded of an epoch is the same record; the state of the run may be wrong.
    """
    from audio_cls.queue.queue import Tally
    from audio_cls.queue.record import is_finished, record_of

    states: dict[str, State] = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED"}
    try:
        known = tracker.runs(experiment, f"tags.kind = '{kind}'")
    except UserError as error:
        log.warning("the runs' states were not checked: %s", error)
        return 0
    runs = {r.run_id: r for r in known} | {r.tags.get("local_uid", r.run_id): r for r in known}
    corrected = 0
    for trial in Tally.of(study.get_trials(deepcopy=False)).latest.values():
        record = record_of(trial)
        run = runs.get(str(record.mlflow_run_id))
        if run is None or not is_finished(trial) or run.state == states[trial.state.name]:
            continue
        log.warning("trial %d ended %s, its run said %s: corrected", trial.number, trial.state.name, run.state)
        again = tracker.reopen(run.run_id)
        again.tags({"trial": str(trial.number), "attempt": str(record.attempt)})
        again.finish(states[trial.state.name], record.reason)
        corrected += 1
    return corrected
