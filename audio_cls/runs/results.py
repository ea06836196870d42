"""Write the artifacts of a complete run: weights, predictions, thresholds, tables, figures, page."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio_cls.core.device import describe_device
from audio_cls.metrics.baselines import BASELINE, baseline_predictions, finite_figures, judge
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.thresholds import TUNED
from audio_cls.runs.clip_columns import clip_columns
from audio_cls.runs.preparation import Prepared, split_facts
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.loop import FINISHED_AT, Fit
from audio_cls.training.predictions import (
    LAST_SCORES,
    SCORES,
    SNAPSHOTS,
    corpus_predictions,
    scores_csv,
    snapshot_scores,
)

if TYPE_CHECKING:
    from audio_cls.tracking import Run

__all__ = ["final_metrics", "log_results", "run_baseline"]


def final_metrics(
    result: Fit, best: dict[str, float], prepared: Prepared, baseline: Mapping[str, float]
) -> dict[str, float]:
    """Return the figures of a whole run: of its best and of its last epoch, of the baseline, and what it cost. `best`
    are the best epoch's. `best/epoch` is MLflow's step, which counts from 0; what people read counts epochs from 1.

    All are taken from the history that the checkpoint keeps, so that whoever ends the run a second time (its first process
    died before that was known) records the same. `final/seconds` is what all epochs took, over all attempts.
    """
    seconds = sum(row["time/train_seconds"] + row.get("time/evaluate_seconds", 0.0) for row in result.history)
    train_seconds = sum(row["time/train_seconds"] for row in result.history)
    seen = sum(row["time/train_seconds"] * row["time/samples_per_second"] for row in result.history)
    out = {f"best/{k}": v for k, v in best.items()}
    out |= {"best/epoch": float(result.best_epoch), "final/epochs": float(len(result.history))}
    out |= {f"last/{k.split('/', 1)[1]}": v for k, v in result.history[-1].items() if k.startswith("val/")}
    out |= {f"{BASELINE}{k}": v for k, v in baseline.items()}
    chain = prepared.chain
    out |= {"final/parameters": float(chain.n_parameters), "final/parameters_total": float(chain.n_parameters_total)}
    out |= {"final/seconds": seconds}
    out |= {"final/train_seconds": train_seconds, "final/samples_per_second": seen / max(train_seconds, 1e-9)}
    if "train/loss" in result.history[-1] and "val/loss" in result.history[-1]:
        out["final/loss_gap"] = result.history[-1]["val/loss"] - result.history[-1]["train/loss"]
    return out


def run_baseline(prepared: Prepared) -> Predictions:
    """Return the predictions of a model that learned nothing, of a run's validation clips; see `metrics.baselines`."""
    targets, split = np.asarray(prepared.corpus.targets), prepared.split
    return baseline_predictions(corpus_predictions(prepared.corpus, split.validation), targets[split.train])


def log_results(
    run: Run,
    name: str,
    prepared: Prepared,
    result: Fit,
    store: CheckpointStore,
    baseline: Predictions,
    collapse: str = "",
) -> tuple[str, ...]:
    """Record the artifacts of a complete run: weights, predictions of the validation clips, tables and the report.

    Returns what its predictions are worth beside the baseline's, in sentences, which are recorded too (tag `findings`); the first
    one is `collapse`, unless that is empty.

    Raises:
        Abandoned: when the grace of whoever was asked to leave is over; all is written again when the run continues.
    """
    from audio_cls.runs.page import RunReport, run_report

    experiment, corpus, split = prepared.experiment, prepared.corpus, prepared.split
    assert result.predictions is not None, "the fit has ended"
    assert result.last_predictions is not None, "the fit has ended"
    judgement = judge(result.predictions, baseline, experiment.training.metric, settings=experiment.flatten())
    predictions = result.predictions.tuned()
    lines = (*([collapse] if collapse else []), *judgement.lines)
    run.tags({"findings": " ".join(lines) or "none"})
    fitted = predictions.fitted_thresholds()
    if fitted is not None:
        tuned = {f"best/{k}": v for k, v in predictions.evaluation.overall.items() if k.endswith(TUNED)}
        run.final(tuned, result.history[-1].get(FINISHED_AT))
        run.tags({"thresholds": predictions.tuned_on})
        by_class = dict(zip(corpus.classes, fitted.tolist(), strict=True))  # for new clips: these have tuned them
        run.artifact_text("thresholds.json", json.dumps(by_class, indent=2))
    written = partial(prepared.batches.watch.step, "writing results", total=3, finish=True)
    written(0)
    run.artifact_text("classes.json", json.dumps({"classes": list(corpus.classes), "task": corpus.task}, indent=2))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "best.safetensors"
        shutil.copyfile(store.best_path(result.best_epoch), weights)
        run.artifact(weights, "weights")
    _log_tables(run, predictions, result.last_predictions)
    _log_snapshots(run, result.snapshots)
    written(1)
    curves = [
        {"epoch": float(i), **{k: v for k, v in row.items() if k != FINISHED_AT}}
        for i, row in enumerate(result.history, start=1)
    ]
    facts = {
        "best epoch": result.best_epoch + 1,
        "parameters": _parameters_text(prepared),
        "data": f"{corpus.name} {corpus.digest[:12]}",
        "split": f"{len(split.train)} training, {len(split.validation)} validation clips",
        "device": describe_device(prepared.batches.device),
        **split_facts(experiment, corpus, split),
    }
    page = run_report(
        RunReport(
            title=name,
            predictions=predictions,
            curves=curves,
            config=experiment.flatten(),
            facts=facts,
            metric=experiment.training.metric,
            baseline=finite_figures(baseline.tuned()),
            columns=clip_columns(corpus, split.validation),
            findings=lines,
        )
    )
    written(2)
    run.artifact_text("report.html", page)
    written(3)
    return lines


def _log_snapshots(run: Run, snapshots: Mapping[int, Predictions]) -> None:
    """Record the validation probabilities at each cycle's end, epoch -> predictions: only `compare --average --snapshots` reads them."""
    for epoch, predictions in snapshots.items():
        table = scores_csv(predictions.clips, predictions.scores, predictions.classes)
        run.artifact_text(snapshot_scores(epoch), table)
    if snapshots:
        run.tags({SNAPSHOTS: ", ".join(map(str, snapshots))})


def _parameters_text(prepared: Prepared) -> int | str:
    trained, total = prepared.chain.n_parameters, prepared.chain.n_parameters_total
    return trained if trained == total else f"{trained} trained of {total}"


def _log_tables(run: Run, predictions: Predictions, last: Predictions) -> None:
    from audio_cls.report.tables import confusion_csv, per_class_csv, predictions_csv

    clips, classes = predictions.clips, predictions.classes
    run.artifact_text("predictions.csv", predictions_csv(predictions))
    run.artifact_text(SCORES, scores_csv(clips, predictions.scores, classes))
    run.artifact_text(LAST_SCORES, scores_csv(clips, last.scores, classes))
    run.artifact_text("per_class.csv", per_class_csv(predictions.evaluation, classes, bool(predictions.tuned_on)))
    if predictions.task == "multiclass":
        run.artifact_text("confusion.csv", confusion_csv(predictions.confusion, classes))
