"""Metrics against scikit-learn and the published definitions, with ties, absent classes and a single class."""

from __future__ import annotations

import itertools
import math
import warnings
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from audio_cls.core.errors import UserError
from audio_cls.metrics import classification as metrics
from audio_cls.metrics.base import Metric, check_metric, metric_of
from audio_cls.metrics.bootstrap import figure_intervals
from audio_cls.metrics.classification import (
    confusion_matrix,
    evaluate,
    family_means,
    fit_thresholds,
    most_confused,
    precision_recall_curve,
    predict,
    roc_curve,
)
from audio_cls.metrics.thresholds import cross_fit_thresholds, split_into_parts
from tests.predictions import made

WEIGHTED = {"weighted_f1", "weighted_precision", "weighted_recall"}
KEYS = {"accuracy", "macro_f1", "micro_f1", "uar", "map", "auc", "d_prime", "lwlrap", "nll", "brier"} | WEIGHTED
OF_FAMILIES = {"family_map", "family_map_noisy_or"}
EPSILON = np.finfo(np.float64).eps
MINIMISED = {"nll", "brier", "loss"}
PER_CLASS = {"support", "precision", "recall", "f1", "ap", "auc", "d_prime", "lwlrap"}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, str]:
    """Scores with few distinct values (many ties) or many, targets with absent and ubiquitous classes, either task."""
    n_clips, n_classes = draw(st.integers(1, 25)), draw(st.integers(1, 7))
    shape = (n_clips, n_classes)
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    grid = draw(st.sampled_from([1, 2, 5, 1000]))  # 1: all scores equal
    scores = (draw(hnp.arrays(np.int64, shape, elements=st.integers(0, grid - 1))) / grid).astype(dtype)
    task = draw(st.sampled_from(["multiclass", "multilabel"]))
    if task == "multiclass":
        labels = draw(hnp.arrays(np.int64, n_clips, elements=st.integers(0, n_classes - 1)))
        targets = np.eye(n_classes, dtype=np.float32)[labels]
    else:
        targets = draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1))).astype(np.float32)
    return scores, targets, task


def reference(scores: np.ndarray, targets: np.ndarray, task: str) -> tuple[dict[str, float], dict[str, Any]]:
    """The same figures, each by scikit-learn's own function (per class where it refuses an absent class)."""
    scores = scores.astype(np.float64)
    n_classes = scores.shape[1]
    if task == "multiclass":
        called = np.eye(n_classes)[scores.argmax(axis=1)]
    else:
        called = (scores >= 0.5).astype(float)
    by_class = [
        sk.precision_recall_fscore_support(targets[:, k], called[:, k], average="binary", zero_division=np.nan)[:3]
        for k in range(n_classes)
    ]
    precision, recall, f1 = np.array(by_class, float).T
    present = np.asarray(targets.sum(axis=0) > 0)
    both = present & np.asarray(targets.sum(axis=0) < len(targets))
    ap = [sk.average_precision_score(targets[:, k], scores[:, k]) if present[k] else np.nan for k in range(n_classes)]
    auc = [sk.roc_auc_score(targets[:, k], scores[:, k]) if both[k] else np.nan for k in range(n_classes)]
    labels = targets.sum(axis=1)
    mean_auc = np.nanmean(auc) if both.any() else np.nan
    overall = {
        "accuracy": sk.accuracy_score(targets, called),
        "macro_f1": np.nanmean(f1) if (targets + called).any() else np.nan,
        "micro_f1": sk.f1_score(targets.ravel(), called.ravel(), zero_division=np.nan),
        "uar": np.nanmean(recall[present]) if present.any() else np.nan,
        "map": np.nanmean(ap) if present.any() else np.nan,
        "auc": mean_auc,
        "d_prime": d_prime(mean_auc),
        "lwlrap": sk.label_ranking_average_precision_score(targets, scores, sample_weight=labels)
        if labels.any()
        else np.nan,
    }
    means = sk.precision_recall_fscore_support(targets, called, average="weighted", zero_division=0)[:3]
    if n_classes == 1:  # a single column is taken for a binary task, whose negatives are a class
        means = [0.0 if np.isnan(figure[0]) else figure[0] for figure in (precision, recall, f1)]
    names = ("weighted_precision", "weighted_recall", "weighted_f1")
    overall |= dict(zip(names, means if targets.any() else [np.nan] * 3, strict=True))
    p = np.clip(scores, EPSILON, 1 - EPSILON)
    if task == "multiclass":
        overall["nll"] = -np.log(p[targets > 0.5]).mean()
        overall["brier"] = ((scores - targets) ** 2).sum(axis=1).mean()
    else:
        overall["nll"] = np.mean([sk.log_loss(targets[:, k], scores[:, k], labels=[0, 1]) for k in range(n_classes)])
        overall["brier"] = np.mean([sk.brier_score_loss(targets[:, k], scores[:, k], pos_label=1) for k in range(n_classes)])  # fmt: skip
    if n_classes == 1 and labels.any():  # scikit-learn refuses a single column; with one label the rank is always 1
        overall["lwlrap"] = 1.0
    if task == "multiclass" and n_classes > 1:
        overall["uar"] = sk.balanced_accuracy_score(targets.argmax(axis=1), scores.argmax(axis=1))
    per_class = {
        "support": targets.sum(axis=0),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "ap": ap,
        "auc": auc,
    }
    return overall, per_class


def d_prime(auc: float) -> float:
    if math.isnan(auc) or auc in (0.0, 1.0):
        return {0.0: -math.inf, 1.0: math.inf}.get(auc, math.nan)
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def dcase_lwlrap(scores: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """The definition of DCASE 2019 task 2 in plain words, for scores without ties."""
    found: list[list[float]] = [[] for _ in range(scores.shape[1])]
    for row, truth in zip(scores, targets):
        ranking = sorted(range(len(row)), key=lambda c: -row[c])
        for label in np.flatnonzero(truth).tolist():
            depth = ranking.index(label) + 1
            found[label].append(sum(truth[c] for c in ranking[:depth]) / depth)
    everything = list(itertools.chain.from_iterable(found))
    return float(np.mean(everything)), np.array([np.mean(f) if f else np.nan for f in found])


@settings(max_examples=150, deadline=None)
@given(cases())
def test_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray, str]) -> None:
    scores, targets, task = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        overall, per_class = reference(scores, targets, task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = evaluate(scores, targets, task)
    assert set(ours.overall) == KEYS
    assert set(ours.per_class) == PER_CLASS
    for key, expected in overall.items():
        assert ours.overall[key] == pytest.approx(expected, abs=1e-12, nan_ok=True), key
        assert type(ours.overall[key]) is float
    for key, values in per_class.items():
        np.testing.assert_allclose(ours.per_class[key], values, atol=1e-12, err_msg=key)
    np.testing.assert_allclose(ours.per_class["d_prime"], [d_prime(a) for a in per_class["auc"]], atol=1e-9)


def test_scikit_learn_defaults_on_complete_data() -> None:
    """Where every class is present, scikit-learn's own macro averages come out without any option of ours."""
    rng = np.random.default_rng(1)
    labels = np.r_[np.arange(6), rng.integers(0, 6, 80)]
    scores = rng.dirichlet(np.ones(6), len(labels)) + 0.3 * np.eye(6)[labels]
    scores /= scores.sum(axis=1, keepdims=True)
    ours = evaluate(scores, np.eye(6)[labels], "multiclass").overall
    called = scores.argmax(axis=1)
    assert ours["macro_f1"] == pytest.approx(sk.f1_score(labels, called, average="macro"))
    assert ours["micro_f1"] == ours["accuracy"] == pytest.approx(sk.accuracy_score(labels, called))
    assert ours["map"] == pytest.approx(sk.average_precision_score(np.eye(6)[labels], scores, average="macro"))
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    assert ours["uar"] == pytest.approx(sk.balanced_accuracy_score(labels, called))


def test_lwlrap_as_defined_by_dcase() -> None:
    rng = np.random.default_rng(2)
    scores = rng.random((60, 9))
    targets = rng.random((60, 9)) < 0.25
    targets[:, 4] = False
    targets[0] = False
    overall, per_class = dcase_lwlrap(scores, targets)
    ours = evaluate(scores, targets, "multilabel")
    assert ours.overall["lwlrap"] == pytest.approx(overall)
    np.testing.assert_allclose(ours.per_class["lwlrap"], per_class)
    # the overall value weights the classes by their labels, which is what the name says
    weights = ours.per_class["support"]
    assert np.nansum(ours.per_class["lwlrap"] * weights) / weights.sum() == pytest.approx(overall)


def test_lwlrap_of_more_labels_than_one_block() -> None:
    rng = np.random.default_rng(3)
    scores, targets = rng.random((1500, 11)).round(1), rng.random((1500, 11)) < 0.3
    expected = sk.label_ranking_average_precision_score(targets, scores, sample_weight=targets.sum(axis=1))
    assert evaluate(scores, targets, "multilabel").overall["lwlrap"] == pytest.approx(expected)


def test_published_d_prime() -> None:
    """Hershey et al., ICASSP 2017, table 2: an AUC of 0.959 goes with d' of 2.452 (the AUC is printed rounded)."""
    assert float(metrics.d_prime(0.959)) == pytest.approx(2.452, abs=0.015)
    assert metrics.d_prime(0.5) == 0
    assert metrics.d_prime(1.0) == math.inf


def test_d_prime_is_that_of_the_mean_auc() -> None:
    rng = np.random.default_rng(4)
    targets = np.eye(3)[rng.integers(0, 3, 60)]
    scores = rng.random((60, 3))
    scores[:, 0] = targets[:, 0]  # one class perfectly separated: its own d' is infinite, the overall one is not
    ours = evaluate(scores, targets, "multiclass")
    assert ours.per_class["d_prime"][0] == math.inf
    assert ours.overall["d_prime"] == pytest.approx(math.sqrt(2) * NormalDist().inv_cdf(ours.overall["auc"]))


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (3, 1)])
def test_too_little_data_is_nan_not_an_error(task: str, shape: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = evaluate(np.full(shape, 0.5), np.zeros(shape), task)
    assert set(ours.overall) == KEYS
    for key in ("map", "auc", "d_prime", "lwlrap", "uar"):
        assert math.isnan(ours.overall[key])


def test_nan_scores_make_every_figure_nan() -> None:
    ours = evaluate(np.array([[0.2, np.nan], [0.1, 0.9]]), np.eye(2), "multiclass")
    assert set(ours.overall) == KEYS
    assert all(math.isnan(v) for v in ours.overall.values())
    assert ours.per_class["support"].tolist() == [1, 1]
    assert set(ours.per_class) == PER_CLASS


def test_shapes_and_task_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 3\)"):
        evaluate(np.zeros((3, 2)), np.zeros((2, 3)), "multiclass")
    with pytest.raises(ValueError, match="3 class names for 2"):
        evaluate(np.zeros((3, 2)), np.zeros((3, 2)), "multiclass", classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="Did you mean 'multilabel'"):
        evaluate(np.zeros((3, 2)), np.zeros((3, 2)), "multi-label")


def test_predictions() -> None:
    scores = np.array([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])
    assert predict(scores, "multiclass").tolist() == [[True, False, False], [False, False, True]]
    assert predict(scores, "multilabel", np.array([0.4, 0.5, 0.7])).tolist() == [
        [True, False, False],
        [False, False, True],
    ]


def brute_force_f1(scores: np.ndarray, positive: np.ndarray) -> float:
    """The best F1 of any threshold at all, one that accepts nothing included."""
    cuts = [*np.unique(scores).tolist(), 2.0]
    return max(sk.f1_score(positive, scores >= cut, zero_division=0) for cut in cuts)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_fitted_thresholds_reach_the_best_f1(case: tuple[np.ndarray, np.ndarray, str]) -> None:
    scores, targets, _ = case
    thresholds = fit_thresholds(scores, targets)
    assert thresholds.shape == (scores.shape[1],)
    np.testing.assert_array_equal(thresholds, fit_thresholds(scores[::-1], targets[::-1]))  # order of clips: no matter
    called = predict(scores, "multilabel", thresholds)
    for index, threshold in enumerate(thresholds):
        positive = targets[:, index] > 0.5
        if not positive.any():
            assert threshold == 0.5
            continue
        assert sk.f1_score(positive, called[:, index]) == pytest.approx(
            brute_force_f1(scores[:, index].astype(float), positive), abs=1e-12
        )


def test_fitted_threshold_is_the_midpoint_and_the_highest_of_equals() -> None:
    scores = np.array([[0.2], [0.4], [0.8], [0.9]])
    assert fit_thresholds(scores, np.array([[0], [0], [1], [1]]))[0] == pytest.approx(0.6)
    assert fit_thresholds(scores, np.array([[1], [1], [1], [1]]))[0] == pytest.approx(0.1)
    # cuts at 0.9 (1 of 1, recall 1/2... F1 2/3) and at 0.2 (2 of 4, F1 2/3) are equally good: the higher one
    assert fit_thresholds(scores, np.array([[1], [0], [0], [1]]))[0] == pytest.approx(0.85)
    low = np.float64(0.3)
    neighbours = np.array([[low], [np.nextafter(low, 1)]])
    fitted = fit_thresholds(neighbours, np.array([[0], [1]]))
    assert predict(neighbours, "multilabel", fitted).ravel().tolist() == [False, True]


@settings(max_examples=80, deadline=None)
@given(cases())
def test_curves_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, str]) -> None:
    scores, targets, _ = case
    for index in range(scores.shape[1]):
        s, y = scores[:, index].astype(np.float64), targets[:, index] > 0.5
        if y.any():
            precision, recall, thresholds = precision_recall_curve(s, y)
            theirs = sk.precision_recall_curve(y, s)
            np.testing.assert_allclose(precision, theirs[0][:-1][::-1])
            np.testing.assert_allclose(recall, theirs[1][:-1][::-1])
            np.testing.assert_allclose(thresholds, theirs[2][::-1])
        if y.any() and not y.all():
            false_alarms, found = roc_curve(s, y)
            assert (false_alarms[0], found[0], false_alarms[-1], found[-1]) == (0, 0, 1, 1)
            assert sk.auc(false_alarms, found) == pytest.approx(sk.roc_auc_score(y, s), abs=1e-12)
            full = sk.roc_curve(y, s, drop_intermediate=False)[:2]
            assert {*zip(false_alarms.round(12), found.round(12))} <= {*zip(full[0].round(12), full[1].round(12))}


def test_curves_of_undefined_classes_are_nan() -> None:
    assert np.isnan(roc_curve(np.array([0.1, 0.2]), np.array([0, 0]))[1]).all()
    assert np.isnan(precision_recall_curve(np.array([0.1, 0.2]), np.array([0, 0]))[1]).all()
    assert precision_recall_curve(np.zeros(0), np.zeros(0))[0].shape == (0,)


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_clips_and_monotone_scores_do_not_matter(
    case: tuple[np.ndarray, np.ndarray, str], random: Any
) -> None:
    scores, targets, task = case
    first = evaluate(scores, targets, task)
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = evaluate(scores[order], targets[order], task)
    stretched = evaluate(scores.astype(np.float64) * 4 - 1, targets, task)
    for key in KEYS:
        assert shuffled.overall[key] == pytest.approx(first.overall[key], abs=1e-12, nan_ok=True)
    for key in ("map", "auc", "lwlrap"):
        assert stretched.overall[key] == pytest.approx(first.overall[key], abs=1e-12, nan_ok=True)


def test_float32_ties_and_near_ties() -> None:
    """Scores that differ in the last bit are ranked apart; equal ones are ties, whatever their order."""
    base = np.float32(0.7)
    scores = np.array([[base], [np.nextafter(base, np.float32(1))], [base]], np.float32)
    assert evaluate(scores, np.array([[0], [1], [0]]), "multilabel").overall["auc"] == 1.0
    assert evaluate(scores, np.array([[0], [0], [1]]), "multilabel").overall["auc"] == 0.25


def test_confusion_matrix_and_most_confused() -> None:
    rng = np.random.default_rng(5)
    truth, called = rng.integers(0, 5, 200), rng.integers(0, 4, 200)
    matrix = confusion_matrix(truth, called, 6)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, called, labels=range(6)))
    np.testing.assert_array_equal(matrix, confusion_matrix(np.eye(6)[truth], np.eye(6)[called]))
    names = list("abcdef")
    worst = most_confused(matrix, names, limit=3)
    off = matrix - np.diag(np.diag(matrix))
    assert worst[0].count == off.max()
    assert [c.count for c in worst] == sorted(off.ravel().tolist(), reverse=True)[:3]
    i, j = names.index(worst[0].true), names.index(worst[0].predicted)
    assert worst[0].rate == pytest.approx(matrix[i, j] / matrix[i].sum())
    assert most_confused(np.diag([3, 4]), ["a", "b"]) == []
    with pytest.raises(ValueError, match="n_classes"):
        confusion_matrix(truth, called)


def test_confusion_of_labels() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]])
    called = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 1]])
    # clip 0 has 0 and 1, hears 0 rightly and 2 wrongly; clip 1 has 0, hears 1 wrongly too
    assert confusion_matrix(truth, called).tolist() == [[2, 1, 1], [0, 0, 1], [0, 0, 1]]
    support = truth.sum(axis=0)
    worst = most_confused(confusion_matrix(truth, called), "abc", support=support)
    assert [(c.true, c.predicted, c.count, c.rate) for c in worst] == [
        ("b", "c", 1, 1.0),
        ("a", "b", 1, 0.5),
        ("a", "c", 1, 0.5),
    ]


def test_family_means() -> None:
    means = family_means(np.array([0.2, 0.4, np.nan, np.nan]), {"animals": [0, 1, 2], "tools": [3], "none": []})
    assert means["animals"] == pytest.approx(0.3)
    assert math.isnan(means["tools"])
    assert math.isnan(means["none"])


@pytest.mark.parametrize("name", [*Metric.members(), "val/macro_f1", "train/loss", "test/map"])
def test_metric_names(name: str) -> None:
    assert check_metric(name) == ("minimize" if name.rpartition("/")[2] in MINIMISED else "maximize")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("val/macrof1", "Did you mean 'macro_f1'"),
        ("macro-f1", "Did you mean 'macro_f1'"),
        ("best/map", "prefix 'best'"),
    ],
)
def test_unknown_metric_says_what_is_allowed(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        check_metric(name)
    assert name in str(error.value)
    assert said in str(error.value)
    assert "lwlrap" in str(error.value)
    assert "val/" in str(error.value)


def test_every_reported_metric_is_a_member() -> None:
    assert {kind for kind, member in Metric.members().items() if member.is_built_in()} == KEYS | OF_FAMILIES | {"loss"}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_members_score_what_is_computed_in_one_pass(task: str) -> None:
    rng = np.random.default_rng(4)
    scores = rng.random((50, 4))
    targets = np.eye(4)[rng.integers(0, 4, 50)] if task == "multiclass" else rng.random((50, 4)) < 0.3
    overall = evaluate(scores, targets, task).overall
    for kind in KEYS:
        metric = metric_of(f"val/{kind}")
        computed = metric.compute(scores, targets > 0.5, predict(scores, task), task)
        assert computed == pytest.approx(overall[kind], rel=1e-12)
        assert metric.low <= overall[kind] <= metric.high


def test_proper_scores_of_one_label_a_clip_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(scale=60.0, size=(80, 4))  # some probabilities round to 0
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    scores[0] = [1.0, 0.0, 0.0, 0.0]
    labels = rng.integers(0, 4, 80)
    labels[0] = 1
    found = evaluate(scores, np.eye(4)[labels], "multiclass").overall
    assert found["nll"] == pytest.approx(sk.log_loss(labels, scores, labels=range(4)), rel=1e-12)
    assert found["brier"] == pytest.approx(np.mean(((scores - np.eye(4)[labels]) ** 2).sum(axis=1)), rel=1e-12)
    assert metric_of("nll").high == pytest.approx(36.04, abs=0.01)  # what the first clip costs


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("kind", ["nll", "brier"])
def test_a_proper_score_is_best_for_the_true_probabilities(task: str, kind: str) -> None:
    """Of clips that have each label with its share, no constant answer scores better than the shares."""
    share = np.array([0.6, 0.3, 0.1])
    targets = np.repeat(np.eye(3), [60, 30, 10], axis=0)

    def figure(p: np.ndarray) -> float:
        return evaluate(np.tile(p, (100, 1)), targets, task).overall[kind]

    others = [share + np.array([d, -d, 0]) for d in (-0.05, -0.01, 0.01, 0.05)] + [np.full(3, 1 / 3)]
    assert all(figure(share) < figure(other) for other in others)


def test_proper_scores_need_probabilities_and_a_task() -> None:
    targets = np.eye(3)[[0, 1, 2, 0]]
    scores = np.array([[2.0, -1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    overall = evaluate(scores, targets, "multiclass").overall
    assert overall["accuracy"] == 1.0
    assert math.isnan(overall["nll"])
    assert math.isnan(overall["brier"])
    with pytest.raises(UserError, match="depends on the task"):
        metric_of("nll").score(scores, targets > 0, targets > 0)


def test_other_thresholds_leave_the_ranking_as_it_is() -> None:
    rng = np.random.default_rng(5)
    predictions = made(rng.random((40, 3)), rng.random((40, 3)) < 0.4, "multilabel")
    first, thresholds = predictions.evaluation, np.array([0.3, 0.6, 0.2])
    again = predictions.with_thresholds(thresholds).evaluation
    whole = evaluate(predictions.scores, predictions.targets, "multilabel", thresholds=thresholds)
    assert again.overall == whole.overall
    assert {k: v for k, v in again.overall.items() if not k.endswith("_tuned")} == first.overall
    assert [k for k in again.overall if k.endswith("_tuned")] == [
        f"{k}_tuned"
        for k in ("accuracy", "macro_f1", "micro_f1", "uar", "weighted_f1", "weighted_precision", "weighted_recall")
    ]
    assert again.overall["macro_f1_tuned"] != first.overall["macro_f1"]
    assert predictions.with_thresholds(None).evaluation.overall == first.overall
    for key, values in whole.per_class.items():
        np.testing.assert_array_equal(again.per_class[key], values)
    tuned = predictions.tuned()
    assert tuned.evaluation.overall["macro_f1"] == first.overall["macro_f1"]
    assert tuned.evaluation.per_class["ap"] is first.per_class["ap"]


def test_tuned_figures_are_of_thresholds_that_did_not_see_the_clips() -> None:
    """Scores of pure chance: thresholds fitted on the very clips find something in them, cross-fitted ones do not."""
    fitted, crossed, chance = [], [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        predictions = made(rng.random((60, 4)), rng.random((60, 4)) < 0.2, "multilabel")
        in_sample = predictions.with_thresholds(predictions.fitted_thresholds())
        fitted.append(in_sample.evaluation.overall["macro_f1_tuned"])
        crossed.append(predictions.tuned().evaluation.overall["macro_f1_tuned"])
        fresh = rng.random((2000, 4)), rng.random((2000, 4)) < 0.2
        chance.append(
            evaluate(*fresh, "multilabel", thresholds=predictions.fitted_thresholds()).overall["macro_f1_tuned"]
        )
    assert np.mean(fitted) > np.mean(chance) + 0.05
    assert abs(np.mean(crossed) - np.mean(chance)) < 0.04


def test_cross_fitting_keeps_groups_whole_and_clips_out() -> None:
    rng = np.random.default_rng(2)
    scores, targets = rng.random((50, 3)), rng.random((50, 3)) < 0.4
    groups = [f"g{i % 12}" for i in range(50)]
    part = split_into_parts(50, groups)
    assert len(set(part.tolist())) == 5
    assert all(len({part[i] for i in range(50) if groups[i] == g}) == 1 for g in groups)
    assert np.bincount(part).min() >= 8
    thresholds = cross_fit_thresholds(scores, targets, groups)
    for k in range(5):
        np.testing.assert_array_equal(
            thresholds[part == k],
            np.tile(fit_thresholds(scores[part != k], targets[part != k]), ((part == k).sum(), 1)),
        )
    own = part == part[0]
    changed = targets.copy()
    changed[own] = ~changed[own]  # labels of a part have no say in its own thresholds
    np.testing.assert_array_equal(cross_fit_thresholds(scores, changed, groups)[own], thresholds[own])
    assert (cross_fit_thresholds(scores, targets, ["one"] * 50) == 0.5).all()


def test_intervals_of_tuned_figures_belong_to_them() -> None:
    rng = np.random.default_rng(3)
    targets = rng.random((80, 3)) < 0.3
    predictions = made(0.25 * targets + 0.3 * rng.random((80, 3)), targets, "multilabel").tuned()
    overall = predictions.evaluation.overall
    intervals = figure_intervals(predictions, 200)
    assert list(intervals) == list(overall)
    for name in ("macro_f1", "macro_f1_tuned", "accuracy_tuned"):
        assert intervals[name].estimate == pytest.approx(overall[name])
    assert intervals["macro_f1_tuned"].low > intervals["macro_f1"].high
    assert "macro_f1_tuned" in predictions.threshold_note or "_tuned" in predictions.threshold_note


def test_family_map_is_that_of_joined_scores_and_not_the_mean_of_the_members() -> None:
    """Two animals that the model cannot tell apart, and two tools that it can: worked by hand."""
    classes, families = ("dog", "cat", "saw", "drill"), {"animal": (0, 1), "tool": (2, 3)}
    targets = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    scores = np.array([[0.2, 0.7, 0.1, 0.1], [0.6, 0.3, 0.1, 0.1], [0.1, 0.1, 0.8, 0.3], [0.1, 0.1, 0.3, 0.8]])
    found = made(scores, targets, "multilabel", classes, families=families).evaluation
    assert found.per_class["ap"].tolist() == [
        0.5,
        0.5,
        1,
        1,
    ]  # the dog is second among the dogs, the cat among the cats
    assert found.overall["map"] == 0.75
    assert found.overall["family_map"] == 1.0  # both animals rank above both tools: 0.7 and 0.6 against 0.1
    assert family_means(found.per_class["ap"], {k: list(v) for k, v in families.items()}) == {
        "animal": 0.5,
        "tool": 1.0,
    }
    assert set(found.overall) >= OF_FAMILIES
    softmax = made(scores / scores.sum(axis=1, keepdims=True), targets, "multiclass", classes, families=families)
    assert set(softmax.evaluation.overall) == KEYS | {"family_map"}  # labels that exclude each other have no noisy-or
    assert set(made(scores, targets, "multilabel", classes).evaluation.overall) == KEYS


def test_family_figures_are_those_of_scikit_learn_on_joined_columns() -> None:
    rng = np.random.default_rng(6)
    scores, targets = rng.random((60, 7)), rng.random((60, 7)) < 0.2
    families = {"a": (0, 1, 2), "b": (2, 3), "c": (4, 5)}  # one class in two families, one in none
    predictions = made(scores, targets, "multilabel", families=families)
    truth = np.stack([targets[:, list(f)].any(axis=1) for f in families.values()], axis=1)
    highest = np.stack([scores[:, list(f)].max(axis=1) for f in families.values()], axis=1)
    noisy_or = np.stack([1 - (1 - scores[:, list(f)]).prod(axis=1) for f in families.values()], axis=1)
    overall = predictions.evaluation.overall
    assert overall["family_map"] == pytest.approx(sk.average_precision_score(truth, highest))
    assert overall["family_map_noisy_or"] == pytest.approx(sk.average_precision_score(truth, noisy_or))
    assert overall["family_map"] != overall["family_map_noisy_or"]
    intervals = figure_intervals(predictions, 40)
    assert intervals["family_map"].estimate == overall["family_map"]
    assert intervals["family_map"].low < overall["family_map"] < intervals["family_map"].high
    sure = np.where(rng.random((60, 7)) < 0.5, 1.0, scores)  # a product of many such probabilities rounds to 0
    assert math.isfinite(made(sure, targets, "multilabel", families=families).evaluation.overall["family_map_noisy_or"])
    broken = made(scores * math.nan, targets, "multilabel", families=families).evaluation.overall
    assert math.isnan(broken["family_map"])
    with pytest.raises(UserError, match="needs the families"):
        metric_of("val/family_map").score(scores, targets, targets)


def test_numbers_are_pinned_to_the_version() -> None:
    """The same predictions must score the same under one VERSION: raise it, and these numbers, together."""
    k = np.arange(40)
    scores = np.stack([(k * 7 % 11) / 11, (k * 5 % 13) / 13, (k * 3 % 17) / 17], axis=1)
    targets = np.stack([k * 7 % 11 > 6, k % 3 == 0, k % 5 == 4], axis=1)
    pinned = {
        1: {
            "multilabel": {
                "accuracy": 0.2,
                "macro_f1": 0.4931917211328976,
                "micro_f1": 0.5161290322580645,
                "uar": 0.6011904761904762,
                "map": 0.5092777014652016,
                "auc": 0.6361464056776557,
                "d_prime": 0.4923967694217728,
                "lwlrap": 0.8378378378378378,
                "nll": 1.5656830303551221,
                "brier": 0.2539736293904271,
            },
            "multiclass": {
                "accuracy": 0.375,
                "macro_f1": 0.36692368101663453,
                "micro_f1": 0.375,
                "uar": 0.3717948717948718,
                "map": 0.35735653068257517,
                "auc": 0.5100393433726768,
                "d_prime": 0.0355923026823365,
                "lwlrap": 0.6125,
                "nll": 4.3915937840936135,
                "brier": 0.9559048453905327,
            },
        }
    }[metrics.VERSION]
    for task, truth in (("multilabel", targets), ("multiclass", np.eye(3)[k % 3])):
        overall = evaluate(scores, truth, task).overall
        assert {key: overall[key] for key in pinned[task]} == pytest.approx(pinned[task], rel=1e-9)
        assert overall.keys() - pinned[task].keys() == WEIGHTED  # held by parity with scikit-learn


@pytest.mark.parametrize(
    ("scores", "targets", "task", "said"),
    [
        ([[0.6, 0.4], [0.2, 0.8]], [[1, 0], [0, 1]], "multiclass", ""),
        ([[0.6, 0.4], [0.7, 0.3]], [[1, 0], [1, 0]], "multiclass", "Undefined here: auc, d_prime: no class has both"),
        ([[np.nan, 0.4], [0.7, 0.3]], [[1, 0], [0, 1]], "multiclass", "scores that are not numbers"),
        ([[0.6, 0.4], [0.7, 0.3]], [[0, 0], [0, 0]], "multilabel", "no clip has a label"),
    ],
    ids=["defined", "one class", "not a number", "no label"],
)
def test_undefined_figures_are_named_with_the_reason(scores: Any, targets: Any, task: str, said: str) -> None:
    found = made(scores, targets, task)
    assert said in found.undefined_note
    assert bool(said) == bool(found.undefined_note)
