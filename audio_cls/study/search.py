"""What a trial of a study runs: the shared objective, its checkpoints, and its MLflow run below the study's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from audio_cls.core.config import Component, ConfigError
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import VERSION, check_metric
from audio_cls.queue.seam import Objective, TrialContext
from audio_cls.queue.tracked import run_tracked
from audio_cls.runs import resolve
from audio_cls.runs.objective import Record
from audio_cls.runs.outcome import Outcome
from audio_cls.runs.preparation import Runtime, dataset_info, mlflow_experiment
from audio_cls.study.declaration import RULES, TRAINING, Settled, Study
from audio_cls.tracking import Run, Tracker
from audio_cls.training import rules as training_version
from audio_cls.training.rules import corrections

__all__ = [
    "check_study",
    "open_parent",
    "settle_study",
    "study_identity",
    "trial_objective",
]

log = logging.getLogger(__name__)


def check_study(study: Study) -> Experiment:
    """The base experiment of a study, once it is certain that the search and its runs choose by the same metric.

    Raises:
        ConfigError: for a base that is no experiment, or a metric or direction that do not fit it.
    """
    base = study.base
    if not isinstance(base, Experiment):
        raise ConfigError(f"study {study.name!r}: base must be an Experiment, found {type(base).__name__}")
    if check_metric(study.metric) != study.direction:
        raise ConfigError(
            f"study {study.name!r}: direction={study.direction!r}, but {study.metric} is better the other way"
        )
    if base.training.metric != study.metric:
        raise ConfigError(
            f"study {study.name!r}: metric={study.metric!r}, but its base chooses the best epoch by "
            f"training.metric={base.training.metric!r}: make them equal"
        )
    base.data.refuse_overfit(f"study {study.name!r}")
    return base.check()


def settle_study(declared: Study, corpus: Corpus, stored: Mapping[str, Any] | None) -> Study:
    """A study with what its base and its trials leave to the data chosen for a corpus.

    By the rules that the study was started with, when its `stored` identity is given; one that was started before there were any
    continues with the fixed defaults of that time.
    """
    rules = resolve.RULES if stored is None else int(stored.get(RULES, 0))

    def complete(experiment: Component) -> Component:
        assert isinstance(experiment, Experiment)
        experiment.data.refuse_overfit(f"study {declared.name!r}")
        return resolve.resolve(experiment, corpus, rules=rules).experiment

    def corrected(experiment: Component, rules: int) -> str:
        assert isinstance(experiment, Experiment)
        return corrections(experiment, len(experiment.data.assign(corpus).train), rules)

    training = training_version.RULES if stored is None else int(stored.get(TRAINING, training_version.FORMER))
    resolved = resolve.resolve(check_study(declared), corpus, rules=rules)
    settled = Settled(rules, complete, resolved.tags, training, corrected)
    return replace(declared, base=resolved.experiment, settled=settled)


def study_identity(corpus: Corpus) -> dict[str, Any]:
    """What joins a study's identity besides its declaration: the data and the code of the metrics."""
    return {"data": corpus.digest, "metric_version": VERSION}


def open_parent(tracker: Tracker, study: Study, corpus: Corpus, file: Path, run_id: str | None) -> Run:
    """The study's own run in MLflow, the parent of its trials' runs."""
    base = check_study(study)
    tracker.experiment(mlflow_experiment(corpus), note=dataset_info(corpus).note())
    run = tracker.on(dataset_info(corpus) if run_id is None else None).start(
        mlflow_experiment(corpus),
        f"study {study.name}",
        kind="study",
        params=base.flatten() if run_id is None else None,
        tags={
            "study": study.name,
            "study.metric": study.metric,
            "study.direction": study.direction,
            "study.sampler": study.sampler.to_json(None),
            "study.pruner": study.pruner.to_json(None),
            "data.digest": corpus.digest,
            **(study.settled.tags if study.settled else {}),
        },
        run_id=run_id,
    )
    if run_id is None:
        run.artifact_text("experiment.json", base.to_json())
        run.artifact(file, "source")
    return run


def trial_objective(runtime: Runtime, study: Study, parent: str | None, file: Path) -> Objective:
    """The objective of a study: trains the trial's experiment, continuing from the attempts before it."""

    def objective(trial: TrialContext) -> Outcome:
        record = Record(
            name=f"{trial.study} {trial.config_index:03d}",
            kind="trial",
            parent=parent,
            run_id=trial.record.mlflow_run_id,
            tags={
                "study": trial.study,
                "trial": str(trial.number),
                "config": str(trial.config_index),
                "attempt": str(trial.attempt),
                "revived": str(trial.revived).lower(),
                **_revival_tags(trial),
                **{f"suggested.{k}": str(v) for k, v in trial.params.items()},
            },
            sources=(file,),
            on_run_id=lambda run_id: trial.note(mlflow_run_id=run_id),
            rules=study.settled.training if study.settled else None,
        )
        return run_tracked(trial, runtime, record)

    return objective


def _revival_tags(trial: TrialContext) -> dict[str, str]:
    """Where a revived trial had been stopped, and why; and its budget where that is not the one it started with."""
    if not trial.revived:
        return {}
    experiment = trial.experiment
    assert isinstance(experiment, Experiment)
    record = trial.record
    tags = {
        "revived.at_epoch": "" if record.pruned_epochs is None else str(record.pruned_epochs),
        "revived.pruned_because": record.pruned_reason,
    }
    if record.own_epochs is not None:
        tags["revived.epochs"] = f"{experiment.training.epochs} instead of {record.own_epochs}"
    return tags
