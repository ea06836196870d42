"""What a complete run leaves behind: weights, predictions, thresholds, tables, figures, its page."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio_cls.core.device import describe_device
from audio_cls.metrics.baselines import BASELINE, Judgement, baseline_figures, baseline_scores, judge
from audio_cls.metrics.classification import confusion_matrix, evaluate, fit_thresholds
from audio_cls.runs.preparation import Prepared, split_facts
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.loop import FINISHED_AT, Fit, predict, probabilities
from audio_cls.training.predictions import LAST_SCORES, SCORES, scores_csv

if TYPE_CHECKING:
    from audio_cls.tracking import Run

__all__ = ["final_metrics", "log_results", "run_baseline"]


def final_metrics(result: Fit, best: dict[str, float], prepared: Prepared) -> dict[str, float]:
    """The figures of a whole run: of its best and of its last epoch, of the baseline, and what it cost. `best` are the best
    epoch's. `best/epoch` is MLflow's step, which counts from 0; what people read counts epochs from 1.

    All are taken from the history that the checkpoint keeps, so that whoever ends the run a second time (its first process
    died before that was known) records the same. `final/seconds` is what all epochs took, over all attempts.
    """
    seconds = sum(row["time/train_seconds"] + row.get("time/evaluate_seconds", 0.0) for row in result.history)
    train_seconds = sum(row["time/train_seconds"] for row in result.history)
    seen = sum(row["time/train_seconds"] * row["time/samples_per_second"] for row in result.history)
    out = {f"best/{k}": v for k, v in best.items()}
    out |= {"best/epoch": float(result.best_epoch), "final/epochs": float(len(result.history))}
    out |= {f"last/{k.split('/', 1)[1]}": v for k, v in result.history[-1].items() if k.startswith("val/")}
    out |= {f"{BASELINE}{k}": v for k, v in run_baseline(prepared).items()}
    out |= {"final/parameters": float(prepared.chain.n_parameters), "final/seconds": seconds}
    out |= {"final/train_seconds": train_seconds, "final/samples_per_second": seen / max(train_seconds, 1e-9)}
    if "train/loss" in result.history[-1] and "val/loss" in result.history[-1]:
        out["final/loss_gap"] = result.history[-1]["val/loss"] - result.history[-1]["train/loss"]
    return out


def run_baseline(prepared: Prepared) -> dict[str, float]:
    """The figures of a model that learned nothing, on a run's validation clips; see `judgement`."""
    targets, split = np.asarray(prepared.corpus.targets), prepared.split
    return baseline_figures(targets[split.train], targets[split.validation], prepared.corpus.task)


def log_results(run: Run, name: str, prepared: Prepared, result: Fit, store: CheckpointStore) -> Judgement:
    """Record the artifacts of a complete run: weights, predictions of the validation clips, tables and the report.

    Returns what its predictions are worth beside the baseline's, which is recorded too (tag `findings`).

    Raises:
        Abandoned: when the grace of whoever was asked to leave is over; all is written again when the run goes on.
    """
    from audio_cls.report.tables import confusion_csv, per_class_csv, predictions_csv
    from audio_cls.runs.page import RunReport, run_report

    experiment, corpus, split = prepared.experiment, prepared.corpus, prepared.split
    logits = predict(prepared.chain, prepared.batches, split.validation)
    scores = probabilities(logits, corpus.task)
    targets = np.asarray(corpus.targets[split.validation])
    thresholds = fit_thresholds(scores, targets) if corpus.task == "multilabel" else None
    clip_ids = [corpus.clips[int(i)].id for i in split.validation]
    evaluation = evaluate(scores, targets, corpus.task, classes=corpus.classes, thresholds=thresholds)
    training = np.asarray(corpus.targets[split.train])
    judgement = judge(
        scores,
        targets,
        baseline_scores(training, len(targets)),
        corpus.task,
        corpus.classes,
        experiment.training.metric,
        groups=corpus.resampling_groups(split.validation),
        settings=experiment.flatten(),
    )
    run.tags({"findings": " ".join(judgement.lines) or "none"})
    if thresholds is not None:
        tuned = {f"best/{k}_tuned": v for k, v in evaluation.overall.items() if k in ("macro_f1", "micro_f1")}
        run.final(tuned, result.history[-1].get(FINISHED_AT))
        run.artifact_text(
            "thresholds.json", json.dumps(dict(zip(corpus.classes, thresholds.tolist(), strict=True)), indent=2)
        )
    written = partial(prepared.batches.watch.step, "writing results", total=3, finish=True)
    written(0)
    run.artifact_text("classes.json", json.dumps({"classes": list(corpus.classes), "task": corpus.task}, indent=2))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "best.safetensors"
        shutil.copyfile(store.best_path(result.best_epoch), weights)
        run.artifact(weights, "weights")
    run.artifact_text(
        "predictions.csv", predictions_csv(clip_ids, targets, scores, corpus.classes, corpus.task, thresholds)
    )
    run.artifact_text(SCORES, scores_csv(clip_ids, scores, corpus.classes))
    run.artifact_text(LAST_SCORES, scores_csv(clip_ids, _last_scores(prepared, result, store, scores), corpus.classes))
    run.artifact_text("per_class.csv", per_class_csv(evaluation, corpus.classes))
    if corpus.task == "multiclass":
        run.artifact_text(
            "confusion.csv",
            confusion_csv(confusion_matrix(targets.argmax(1), scores.argmax(1), len(corpus.classes)), corpus.classes),
        )
    written(1)
    curves = [{"epoch": float(i), **row} for i, row in enumerate(result.history, start=1)]
    for row in curves:
        row.pop(FINISHED_AT, None)
    facts = {
        "best epoch": result.best_epoch + 1,
        "parameters": prepared.chain.n_parameters,
        "data": f"{corpus.name} {corpus.digest[:12]}",
        "split": f"{len(split.train)} training, {len(split.validation)} validation clips",
        "device": describe_device(prepared.batches.device),
        **split_facts(experiment, corpus, split),
    }
    page = run_report(
        RunReport(
            title=name,
            task=corpus.task,
            classes=list(corpus.classes),
            scores=scores,
            targets=targets,
            clip_ids=clip_ids,
            curves=curves,
            config=experiment.flatten(),
            facts=facts,
            thresholds=thresholds,
            metric=experiment.training.metric,
            baseline=baseline_figures(training, targets, corpus.task, fitted_on=targets),
            findings=judgement.lines,
        )
    )
    written(2)
    run.artifact_text("report.html", page)
    written(3)
    return judgement


def _last_scores(prepared: Prepared, result: Fit, store: CheckpointStore, best: np.ndarray) -> np.ndarray:
    """Validation probabilities of the last epoch's weights, which nobody chose; the chain is left with the best epoch's."""
    found = store.load()
    if result.best_epoch == len(result.history) - 1 or found is None:
        return best
    classifier, averaged = prepared.chain.classifier, found[0].part("ema")
    chosen = {k: v.detach().clone() for k, v in classifier.state_dict().items()}
    classifier.load_state_dict(averaged or found[0].part("model"))
    try:
        return probabilities(predict(prepared.chain, prepared.batches, prepared.split.validation), prepared.corpus.task)
    finally:
        classifier.load_state_dict(chosen)
