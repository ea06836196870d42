"""Compare a model's figures with those of a model that learned nothing, in sentences.

The baseline gives every clip the same scores: how often each label occurs among the training clips. With one label a clip it
therefore always answers the majority class; its figures are computed by the same code, on the same clips, as the model's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.base import metric_of, plain_name
from audio_cls.metrics.bootstrap import Interval, clip_bootstrap, is_counted, metric_function
from audio_cls.metrics.classification import evaluate, predict
from audio_cls.metrics.families import Families
from audio_cls.metrics.predictions import Predictions

__all__ = [
    "BASELINE",
    "FEW_CLIPS",
    "Judgement",
    "accuracy_caveat",
    "advice",
    "baseline_figures",
    "baseline_name",
    "baseline_predictions",
    "baseline_scores",
    "few_clips",
    "finite_figures",
    "judge",
    "single_answer",
    "top_class",
]

Array = NDArray[Any]

BASELINE = "baseline/"
"""Prefix of the baseline's figures in a run's record."""

FEW_CLIPS = 10
"""A class with fewer clips to be measured on is warned of."""

MAJORITY_SHARE, TIMES_EQUAL = 0.5, 1.5
WORK = 2e7  # clips x classes x resamples of the metrics of a ranking: a few seconds


@dataclass(frozen=True)
class Judgement:
    """baseline: overall metric -> figure of the baseline on the same clips. findings: what is wrong with the predictions, in
    sentences, the gravest first; empty if nothing is. advice: what to try, as options of the command line; empty without
    findings. about_data: sentences about the clips that the figures rest on."""

    baseline: Mapping[str, float]
    findings: tuple[str, ...] = ()
    advice: str = ""
    about_data: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The findings, the advice, what there is to say about the data."""
        return (*self.findings, *([self.advice] if self.advice else ()), *self.about_data)


def baseline_name(task: str) -> str:
    """Return what the baseline is called in tables."""
    return "majority baseline" if task == "multiclass" else "prior baseline"


def baseline_scores(training_targets: Array, n: int) -> NDArray[np.float64]:
    """(n, n_classes): for each clip the share of each label among the training clips, (n_training, n_classes) of 0 and 1."""
    share = np.asarray(training_targets, np.float64).mean(axis=0)
    return np.broadcast_to(share, (n, len(share))).copy()


def baseline_predictions(predictions: Predictions, training_targets: Array) -> Predictions:
    """Return the baseline's predictions of the same clips; labels are called from 0.5 on."""
    return replace(predictions, scores=baseline_scores(training_targets, len(predictions)), thresholds=None)


def finite_figures(predictions: Predictions) -> dict[str, float]:
    """Return every overall metric of some predictions that is defined; empty without clips."""
    if not len(predictions):
        return {}
    return {name: value for name, value in predictions.evaluation.overall.items() if isfinite(value)}


def baseline_figures(
    training_targets: Array, targets: Array, task: str, families: Families | None = None
) -> dict[str, float]:
    """Return every overall metric of the baseline that is defined; labels are called from 0.5 on.

    Args:
        training_targets: (n_training, n_classes).
        targets: (n, n_classes) of the clips that are measured on.
        families: name -> columns of its classes.
    """
    if not len(targets):
        return {}
    scores = baseline_scores(training_targets, len(targets))
    overall = evaluate(scores, targets, task, families=families).overall
    return {name: value for name, value in overall.items() if isfinite(value)}


def single_answer(scores: Array, task: str, classes: Sequence[str]) -> str | None:
    """Return what every clip is called where all are called the same ("no label" where none is called), else None.

    Args:
        scores: (n, n_classes) probabilities; labels of multilabel are called from 0.5 on.
    """
    if len(scores) < 2 or np.isnan(scores).any():
        return None
    called = predict(np.asarray(scores), task)
    if (called != called[0]).any():
        return None
    return " and ".join(classes[k] for k in np.flatnonzero(called[0]).tolist()) or "no label"


def top_class(targets: Array, classes: Sequence[str]) -> tuple[str, float]:
    """Return the label that most clips have, and their share."""
    shares = np.asarray(targets, np.float64).mean(axis=0)
    return classes[int(shares.argmax())], float(shares.max())


def accuracy_caveat(metric: str, targets: Array, task: str, classes: Sequence[str]) -> str:
    """Return why accuracy says little on these clips; empty if it does not, and for other metrics.

    The rule: one class has half of the clips or more, and one and a half times its equal share or more (so 75 % of two
    classes, 50 % of three and up). Micro F1 is accuracy where a clip has one label. With several labels a clip, accuracy
    is exact match, and the rule asks whether half of the clips have the same labels.

    Args:
        metric: a name, with or without a prefix.
        targets: (n, n_classes) of the clips that are measured on.
    """
    plain = plain_name(metric)
    if not len(targets) or plain not in ("accuracy", *(("micro_f1",) if task == "multiclass" else ())):
        return ""
    if task == "multiclass":
        name, share = top_class(targets, classes)
        answer = repr(name)
        heavy = share >= max(MAJORITY_SHARE, TIMES_EQUAL / len(classes))
    else:
        rows, counts = np.unique(np.asarray(targets) > 0.5, axis=0, return_counts=True)
        share = counts.max() / len(targets)
        answer = " and ".join(classes[k] for k in np.flatnonzero(rows[counts.argmax()]).tolist()) or "no label"
        heavy = share >= MAJORITY_SHARE
    if not heavy:
        return ""
    return (
        f"{plain} says little here: {100 * share:.0f} % of the clips are {answer}, and always answering that scores {share:.3f}; "
        "judge by macro_f1 or uar"
    )


def few_clips(counts: Sequence[int] | Array, classes: Sequence[str], of: str = "validation clips") -> str:
    """Return the sentence that warns of classes with fewer than `FEW_CLIPS` clips (and more than none); empty without such.

    Args:
        counts: (n_classes,) clips of each class.
        of: what the clips are, as the sentence says it.
    """
    few = [(name, int(n)) for name, n in zip(classes, counts, strict=True) if 0 < n < FEW_CLIPS]
    if not few:
        return ""
    present = sum(n > 0 for n in counts)
    if len(few) == present and present > 1:
        low, high = min(n for _, n in few), max(n for _, n in few)
        which = f"all {present} classes ({low if low == high else f'{low} to {high}'} each)"
    else:
        which = _listed([f"{name} ({n})" for name, n in few])
    return (
        f"Fewer than {FEW_CLIPS} {of} in {which}: figures of such a class, and means over classes, move much by chance."
    )


def judge(
    predictions: Predictions,
    baseline: Predictions,
    metric: str = "macro_f1",
    *,
    settings: Mapping[str, Any] | None = None,
    clips: str = "validation clips",
    counts: Array | None = None,
) -> Judgement:
    """Judge a model's predictions beside the baseline's.

    "At chance" is reported where the 95 % bootstrap interval of the difference of `metric` between model and baseline, over clips
    or groups, reaches down to 0. Labels of multilabel are called from 0.5 on.

    Args:
        predictions: with a NaN among the scores nothing is found.
        baseline: of the same clips, see `baseline_predictions`.
        metric: the one that matters, with or without a prefix; for the loss, macro F1 or mAP stands in.
        settings: the experiment's flat configuration, for the advice.
        clips: what the clips are, as the sentences say it.
        counts: (n_classes,) different clips of each class, where rows repeat clips.
    """
    scores, targets = np.asarray(predictions.scores), np.asarray(predictions.targets)
    task, classes, figures = predictions.task, predictions.classes, finite_figures(baseline)
    if not len(targets) or np.isnan(scores).any():
        return Judgement(figures)
    collapsed = _never_called(scores, targets, task, classes, clips)
    findings = (*collapsed, *_at_chance(predictions, baseline.scores, _judged_by(metric, task), clips))
    caveat = accuracy_caveat("accuracy", targets, task, classes)
    small = few_clips(
        (targets > 0.5).sum(axis=0) if counts is None else counts, classes, clips.replace("predictions", "clips")
    )
    about = (*((f"{caveat[0].upper()}{caveat[1:]}.",) if caveat else ()), *((small,) if small else ()))
    return Judgement(figures, findings, advice(settings or {}, targets, task) if findings else "", about)


def _judged_by(metric: str, task: str) -> str:
    plain = plain_name(metric)
    if plain == "loss":
        return "macro_f1" if task == "multiclass" else "map"
    return "auc" if plain == "d_prime" else plain


def _never_called(scores: Array, targets: Array, task: str, classes: Sequence[str], clips: str) -> list[str]:
    called = predict(scores, task)
    present = (targets > 0.5).sum(axis=0) > 0
    never = [classes[k] for k in np.flatnonzero(present & ~called.any(axis=0)).tolist()]
    answer = single_answer(scores, task, classes)
    at = " at the threshold 0.5" if task == "multilabel" else ""
    if answer is not None and never:
        return [f"Calls everything {answer!r}{at}: never predicts {_listed(never)} on {len(targets)} {clips}."]
    return [f"Never predicts {_listed(never)}{at}, which {len(targets)} {clips} hold."] if never else []


def _at_chance(predictions: Predictions, reference: Array, name: str, clips: str) -> list[str]:
    scores, targets, task = np.asarray(predictions.scores), np.asarray(predictions.targets), predictions.task
    metric = metric_of(name)
    found = _difference(predictions, reference, name)
    low, high = (found.low, found.high) if metric.direction == "maximize" else (-found.high, -found.low)
    if not isfinite(low) or low > 0:
        return []
    measure = metric_function(name, task, predictions.families)
    mine, theirs = measure(scores, targets), measure(reference, targets)
    word = "Below chance" if high < 0 else "At chance"
    said = (
        f"{word}: {name} {mine:.3f}, {baseline_name(task)} {theirs:.3f}, difference {found.estimate:+.3f} "
        f"[{found.low:+.3f}, {found.high:+.3f}] over {len(targets)} {clips}."
    )
    if metric.uses == "ranking":
        return [said]
    ranking = _difference(predictions, reference, "auc")
    if isfinite(ranking.low) and ranking.low > 0:
        auc, of_decisions = predictions.evaluation.overall["auc"], metric.uses == "decisions"
        wrong = "the decisions that one class wins" if of_decisions else "the probabilities that are too sure"
        said += f" Its scores do rank the classes (AUC {auc:.3f}): it is {wrong}."
    return [said]


def _difference(predictions: Predictions, reference: Array, name: str) -> Interval:
    targets = np.asarray(predictions.targets)
    resamples = 1000 if is_counted(name) else int(np.clip(WORK // max(targets.size, 1), 40, 400))
    measure = metric_function(name, predictions.task, predictions.families)
    return clip_bootstrap(predictions.scores, reference, targets, measure, predictions.groups, resamples)


def advice(settings: Mapping[str, Any], targets: Array, task: str, tried: Collection[str] = ()) -> str:
    """Return what to try against a model that has learned nothing, as `--set` options that are not in force yet.

    Args:
        settings: a flat configuration; empty says the options without a look at what is set.
        targets: (n, n_classes), to tell whether the classes are balanced.
        tried: keys that are tried already.
    """
    shares = np.asarray(targets, np.float64).mean(axis=0)
    present = shares[shares > 0]
    options = []
    if len(present) and (task == "multilabel" or present.max() >= TIMES_EQUAL * present.mean()):
        if settings.get("model.kind") == "logistic_regression":
            if settings.get("model.class_weight") != "balanced":
                options.append("--set model.class_weight=balanced")
        elif settings.get("loss.class_weights", "none") in (None, "none"):
            options.append("--set loss.class_weights=inverse")
        if settings.get("sampling.kind", settings.get("sampling", "uniform")) == "uniform":
            options.append(f"--set sampling={'balanced' if task == 'multiclass' else 'repeat_factor'}")
        if str(settings.get("training.metric", "")).endswith("accuracy"):
            options.append("--set training.metric=val/macro_f1")
    epochs = settings.get("training.epochs")
    if isinstance(epochs, int) and settings.get("model.kind") != "logistic_regression":
        options.append(f"--set training.epochs={2 * epochs}")
    options = [o for o in options if o.removeprefix("--set ").partition("=")[0] not in tried]
    return f"Try: {', '.join(options)}." if options else ""


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
