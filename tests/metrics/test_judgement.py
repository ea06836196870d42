"""What figures are worth beside a model that learned nothing: the baseline, the sentences, what they make of verdicts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score

from audio_cls.ablation.answers import Answers, amend, judge_cells
from audio_cls.ablation.contract import Plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.details import all_details, captions, main_details
from audio_cls.ablation.record import Recorded
from audio_cls.ablation.results import SuiteResult, compare_arms, summarise
from audio_cls.experiment import Experiment
from audio_cls.metrics import baselines
from audio_cls.metrics.base import p_text
from audio_cls.metrics.baselines import (
    Judgement,
    accuracy_caveat,
    advice,
    baseline_figures,
    baseline_scores,
    few_clips,
    single_answer,
)
from audio_cls.metrics.classification import evaluate
from audio_cls.training.predictions import corpus_predictions
from tests.predictions import made

CLASSES = ("hungry", "tired", "burping")
SETTINGS = Experiment().flatten()


def labels(counts: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """(n, n_classes) of 0 and 1, shuffled."""
    drawn = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    return np.eye(len(counts))[drawn]


TRAINING, VALIDATION = labels((168, 20, 12)), labels((84, 11, 5), seed=1)
REFERENCE = baseline_scores(TRAINING, len(VALIDATION))


def judge(
    scores: Any, targets: Any, reference: Any, task: str, classes: Any, metric: str = "macro_f1", *, groups: Any = None,
    **more: Any,
) -> Judgement:  # fmt: skip
    predictions = made(scores, targets, task, classes, groups=groups)
    return baselines.judge(predictions, made(reference, targets, task, classes), metric, **more)


def constant(column: int, n: int = len(VALIDATION)) -> np.ndarray:
    return np.tile(np.eye(3)[column] * 0.4 + 0.2, (n, 1))


# -- the baseline ------------------------------------------------------------------------------------------------------


def test_the_baseline_is_the_majority_class_as_scikit_learn_has_it() -> None:
    figures = baseline_figures(TRAINING, VALIDATION, "multiclass")
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((200, 1)), TRAINING.argmax(1))
    called, truth = dummy.predict(np.zeros((100, 1))), VALIDATION.argmax(1)
    assert figures["accuracy"] == accuracy_score(truth, called) == 0.84
    assert figures["uar"] == pytest.approx(balanced_accuracy_score(truth, called))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, called, average="macro"))
    assert (figures["auc"], figures["d_prime"]) == (0.5, 0.0)
    assert set(figures) == set(evaluate(VALIDATION, VALIDATION, "multiclass").overall)  # a figure beside every metric


def test_the_prior_baseline_of_several_labels() -> None:
    rng = np.random.default_rng(2)
    training, validation = (rng.random((n, 3)) < (0.7, 0.3, 0.1) for n in (300, 100))
    figures = baseline_figures(training, validation, "multilabel")
    scores = baseline_scores(training, 100)
    assert figures["map"] == pytest.approx(average_precision_score(validation, scores, average="macro"))
    called = np.tile([True, False, False], (100, 1))  # only the first label is there in half of the clips or more
    assert figures["macro_f1"] == pytest.approx(f1_score(validation, called, average="macro", zero_division=0))


def test_the_baseline_learns_from_training_clips_alone() -> None:
    assert baseline_figures(labels((5, 20, 5)), VALIDATION, "multiclass")["accuracy"] == 0.11


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_a_model_that_calls_everything_one_class_is_told_so() -> None:
    found = judge(constant(0), VALIDATION, REFERENCE, "multiclass", CLASSES, "val/macro_f1", settings=SETTINGS)
    first, second = found.findings
    assert first == "Calls everything 'hungry': never predicts tired, burping on 100 validation clips."
    assert second.startswith("At chance: macro_f1 0.304, majority baseline 0.304, difference +0.000 [+0.000, +0.000]")
    assert "--set loss.class_weights=inverse, --set sampling=balanced, --set training.epochs=60" in found.advice
    accuracy, few = found.about_data
    assert accuracy.startswith("Accuracy says little here: 84 % of the clips are 'hungry'")
    assert few.startswith("Fewer than 10 validation clips in burping (5):")
    assert found.lines == (first, second, found.advice, accuracy, few)


def test_a_good_model_on_balanced_clips_is_told_nothing() -> None:
    truth = labels((30, 30, 30))
    found = judge(truth * 0.6 + 0.1, truth, baseline_scores(truth, 90), "multiclass", CLASSES, settings=SETTINGS)
    assert found.lines == ()
    assert found.baseline["accuracy"] == pytest.approx(1 / 3)


def test_a_class_that_is_never_predicted_is_named() -> None:
    scores = VALIDATION * 0.6 + 0.1
    scores[:, 2] = 0.0
    [sentence] = judge(scores, VALIDATION, REFERENCE, "multiclass", CLASSES).findings
    assert sentence == "Never predicts burping, which 100 validation clips hold."


def test_scores_that_rank_but_do_not_decide_are_told_apart_from_noise() -> None:
    rng = np.random.default_rng(3)
    leaning = np.tile([0.8, 0.1, 0.1], (100, 1)) + 0.05 * VALIDATION + 0.01 * rng.random((100, 3))
    ranked = judge(leaning, VALIDATION, REFERENCE, "multiclass", CLASSES).findings
    assert "Its scores do rank the classes (AUC 1.000)" in ranked[1]
    noise = np.tile([0.8, 0.1, 0.1], (100, 1)) + 0.01 * rng.random((100, 3))
    assert not any("rank" in line for line in judge(noise, VALIDATION, REFERENCE, "multiclass", CLASSES).findings)


def test_groups_are_drawn_whole_so_that_copies_of_a_clip_prove_nothing() -> None:
    truth = labels((12, 8, 8), seed=4)
    scores = np.roll(truth, 1, axis=0) * 0.2 + truth * 0.21  # a little better than chance
    many, targets = np.tile(scores, (20, 1)), np.tile(truth, (20, 1))
    reference = baseline_scores(truth, len(targets))
    rows = [str(i % len(truth)) for i in range(len(targets))]
    assert judge(many, targets, reference, "multiclass", CLASSES).findings == ()
    worse = scores.copy()
    worse[::2] = worse[::2][:, [1, 2, 0]]
    repeated = np.tile(worse, (20, 1))
    apart = judge(repeated, targets, reference, "multiclass", CLASSES, "accuracy").findings
    together = judge(repeated, targets, reference, "multiclass", CLASSES, "accuracy", groups=rows).findings
    assert len(together) > len(apart)


def test_a_diverged_model_is_not_judged() -> None:
    found = judge(np.full((100, 3), np.nan), VALIDATION, REFERENCE, "multiclass", CLASSES)
    assert found.lines == ()
    assert found.baseline["accuracy"] == 0.84


@pytest.mark.parametrize("metric", ["val/loss", "val/d_prime", "val/map", "val/lwlrap", "val/accuracy", "val/nll"])
def test_every_metric_can_be_at_chance(metric: str) -> None:
    found = judge(REFERENCE, VALIDATION, REFERENCE, "multiclass", CLASSES, metric)
    assert any(line.startswith("At chance") for line in found.findings)


def test_less_is_better_where_a_metric_is_minimised() -> None:
    sure = 0.9 * VALIDATION + 0.1 / 3
    assert judge(sure, VALIDATION, REFERENCE, "multiclass", CLASSES, "val/nll").findings == ()
    too_sure = np.where(VALIDATION > 0.5, 0.3, 1e-9)  # right order, wrong probabilities
    too_sure[::20] = np.roll(VALIDATION, 1, axis=1)[::20]
    (said,) = judge(too_sure, VALIDATION, REFERENCE, "multiclass", CLASSES, "val/nll").findings
    assert said.startswith("Below chance: nll ")
    assert said.endswith("it is the probabilities that are too sure.")


def test_labels_that_are_never_called() -> None:
    rng = np.random.default_rng(5)
    truth = (rng.random((80, 3)) < 0.3).astype(float)
    scores = 0.1 + 0.3 * truth
    found = judge(scores, truth, baseline_scores(truth, 80), "multilabel", CLASSES, "val/map", settings=SETTINGS)
    assert found.findings == (
        "Calls everything 'no label' at the threshold 0.5: never predicts hungry, tired, burping on 80 validation clips.",
    )
    assert "sampling=repeat_factor" in found.advice


@pytest.mark.parametrize(
    ("counts", "misleads"),
    [((84, 8, 8), True), ((50, 25, 25), True), ((45, 30, 25), False), ((74, 26), False), ((75, 25), True), ((9, 9), False)],
)  # fmt: skip
def test_accuracy_says_little_where_one_class_fills_the_clips(counts: tuple[int, ...], misleads: bool) -> None:
    said = accuracy_caveat("val/accuracy", labels(counts), "multiclass", CLASSES[: len(counts)])
    assert bool(said) == misleads
    assert bool(accuracy_caveat("micro_f1", labels(counts), "multiclass", CLASSES[: len(counts)])) == misleads
    assert accuracy_caveat("val/macro_f1", labels(counts), "multiclass", CLASSES[: len(counts)]) == ""


def test_exact_match_says_little_where_most_clips_have_the_same_labels() -> None:
    silent = np.zeros((10, 3))
    silent[:4, 1] = 1
    said = accuracy_caveat("accuracy", silent, "multilabel", CLASSES)
    assert "60 % of the clips are no label, and always answering that scores 0.600" in said
    silent[:, 0] = np.arange(10) % 2
    assert accuracy_caveat("accuracy", silent, "multilabel", CLASSES) == ""


def test_classes_with_few_clips() -> None:
    assert few_clips([10, 50, 0], CLASSES) == ""
    assert "validation clips in tired (9):" in few_clips([10, 9, 0], CLASSES)
    assert "in all 3 classes (8 each):" in few_clips([8, 8, 8], CLASSES)
    assert "in all 2 classes (3 to 8 each):" in few_clips([8, 0, 3], CLASSES)


def test_advice_names_only_what_is_not_in_force() -> None:
    weighted = Experiment().override({"loss.class_weights": "inverse", "training.metric": "val/accuracy"}).flatten()
    said = advice(weighted, VALIDATION, "multiclass")
    assert said == "Try: --set sampling=balanced, --set training.metric=val/macro_f1, --set training.epochs=60."
    assert advice(SETTINGS, labels((9, 9, 9)), "multiclass") == "Try: --set training.epochs=60."
    assert "sampling" not in advice(SETTINGS, VALIDATION, "multiclass", tried={"sampling"})
    fitted = Experiment().override({"model": "logistic_regression", "features": "mfcc_statistics"}).flatten()
    assert advice(fitted, VALIDATION, "multiclass").startswith("Try: --set model.class_weight=balanced, --set sampling")
    for option in said.removeprefix("Try: ").rstrip(".").split(", "):  # what is named must be taken
        key, _, value = option.removeprefix("--set ").partition("=")
        Experiment().override({key: int(value) if value.isdigit() else value})


def test_a_single_answer() -> None:
    assert single_answer(constant(1), "multiclass", CLASSES) == "tired"
    assert single_answer(VALIDATION, "multiclass", CLASSES) is None
    assert single_answer(constant(1)[:1], "multiclass", CLASSES) is None  # one clip shows nothing
    assert single_answer(np.tile([0.9, 0.6, 0.1], (4, 1)), "multilabel", CLASSES) == "hungry and tired"


# -- suites ------------------------------------------------------------------------------------------------------------


class FakeCorpus(SimpleNamespace):
    def resampling_groups(self, rows: Any) -> list[str]:
        return [str(int(i)) for i in rows]

    def class_counts(self, rows: Any = None) -> np.ndarray:
        return np.asarray((self.targets if rows is None else self.targets[rows]).sum(axis=0), np.int64)


CORPUS: Any = FakeCorpus(
    targets=np.concatenate([TRAINING, VALIDATION]),
    classes=CLASSES,
    task="multiclass",
    ids=[str(i) for i in range(300)],
    family_columns={},
)
ROWS = np.arange(200, 300)


def suite(
    arms: dict[str, list[np.ndarray]], metric: Any = ("val/macro_f1", "val/accuracy"), clips: bool = False
) -> list[SuiteResult]:
    """A suite of one split and several seeds, whose arms gave these probabilities; judged clip by `clips` if wanted."""
    changes: dict[str, dict[str, Any]] = {name: {"seed": 1000 * k} for k, name in enumerate(arms)}
    ablation = Ablation("fake", Experiment(), "plain", changes, metric=metric, seeds=range(3), folds=None)
    scores = {
        a: {(s, 0): corpus_predictions(CORPUS, ROWS, v) for s, v in enumerate(values)} for a, values in arms.items()
    }
    records = []
    for arm, cells in scores.items():
        for (seed, fold), cell in cells.items():
            figures = cell.evaluation.overall
            records.append(Recorded(arm, seed, fold, "COMPLETE", "", None, {}, {}, figures, figures, {}))
    plan = Plan((), (0,), 0.25, ())
    answers = Answers(scores, {0: np.arange(200)}, {0: ROWS})
    compared = {m: compare_arms(ablation, plan, records, m, scores) if clips else None for m in ablation.metrics}
    return [amend(summarise(ablation, plan, records, m, compared=c), answers, CORPUS) for m, c in compared.items()]


def good(seed: int, noise: float = 0.3) -> np.ndarray:
    return VALIDATION * 0.5 + noise * np.random.default_rng(seed).random(VALIDATION.shape)


def verdict_of(result: SuiteResult, name: str) -> Any:
    return next(arm.verdict for arm in result.arms if arm.name == name)


def test_two_arms_that_call_everything_one_class_are_not_compared() -> None:
    first, second = suite({"plain": [constant(0)] * 3, "focal": [constant(0) + 0.01] * 3})
    said = verdict_of(first, "focal").text
    assert said.startswith("both call everything 'hungry': nothing to compare; try: --set loss.class_weights=inverse")
    assert "spread" not in said
    assert verdict_of(second, "focal").text == said  # one answer by every metric
    assert any(
        f.startswith("plain, focal: calls everything 'hungry': never predicts tired, burping") for f in first.findings
    )
    assert any(f.startswith("plain, focal: at chance") for f in first.findings)
    assert first.baseline["macro_f1"] == pytest.approx(baseline_figures(TRAINING, VALIDATION, "multiclass")["macro_f1"])


def test_different_single_classes_are_not_compared_either() -> None:
    [first] = suite({"plain": [constant(0)] * 3, "weights": [constant(1), constant(2), constant(1)]}, "val/uar")
    said = verdict_of(first, "weights").text
    assert "both call everything one class in each run (weights 'burping' or 'tired', plain 'hungry')" in said
    assert any("weights: calls everything one class in 3 of 3 runs" in line for line in first.findings)


def test_one_arm_that_has_learned_is_compared() -> None:
    first, second = suite({"plain": [constant(0)] * 3, "weights": [good(s, 0.8) for s in range(3)]})
    assert verdict_of(first, "weights").word == "helps"
    # Accuracy stands in the table, and is no verdict where one class has 84 % of the clips.
    assert verdict_of(second, "weights").word == "not judged"
    assert "84 % of the clips are 'hungry'" in verdict_of(second, "weights").text
    assert not any("says little" in line for line in first.findings)


def test_accuracy_that_was_asked_for_is_judged_with_a_caveat() -> None:
    [only] = suite({"plain": [constant(0)] * 3, "weights": [good(s, 0.6) for s in range(3)]}, "val/accuracy")
    verdict = verdict_of(only, "weights")
    assert verdict.word == "helps"
    assert "; but accuracy says little here: 84 % of the clips are 'hungry'" in verdict.text
    assert any("accuracy says little here" in line.lower() for line in only.findings)


def test_figures_of_a_ranking_are_compared_whatever_the_decisions_are() -> None:
    leaning = [np.tile([0.9, 0.0, 0.0], (100, 1)) + 0.05 * good(s) for s in range(3)]
    [first] = suite({"plain": [constant(0) for _ in range(3)], "ranks": leaning}, "val/map")
    assert "nothing to compare" not in verdict_of(first, "ranks").text


def test_beside_a_verdict_stand_probabilities_and_the_wider_test() -> None:
    arms = {
        "plain": [constant(0)] * 3,
        "weights": [good(s, 0.8) for s in range(3)],
        "more": [good(s, 0.9) for s in (3, 4, 5)],
    }
    [by_runs] = suite(arms, "val/uar")
    [by_clips] = suite(arms, "val/uar", clips=True)
    assert [arm.wider for arm in by_runs.arms] == [None, None, None]
    assert "on this split (without the clips' predictions)" in verdict_of(by_runs, "more").text
    found = next(arm for arm in by_clips.arms if arm.name == "more")
    assert found.verdict is not None
    assert found.verdict.population == "new clips and seeds, on this split"
    assert found.wider is not None
    assert found.wider.p == verdict_of(by_runs, "more").p  # today's test, beside
    said = main_details(found, by_clips)[0]
    assert said.startswith(
        "better by more than 1 point: > 99 %, within it: < 1 %, worse: < 1 %; for new seeds, on this split ["
    )
    assert said.endswith(f"], {p_text(found.wider.p)}")
    assert captions(by_clips)[-1].startswith("intervals are those of the tests after Holm")
    assert "better in 3, worse in 0, equal in 0 of 3 pairs" in all_details(found, by_clips)


def test_some_runs_that_collapse_are_counted() -> None:
    cells = {(0, 0): corpus_predictions(CORPUS, ROWS, constant(0)), (1, 0): corpus_predictions(CORPUS, ROWS, good(1))}
    found = judge_cells(cells, {0: np.arange(200)}, CORPUS, "macro_f1", SETTINGS)
    assert found.findings[0] == "Calls everything one class in 1 of 2 runs ('hungry' in 1)."
    assert "burping (5)" in found.about_data[-1]  # different clips are counted, not predictions


# -- studies -----------------------------------------------------------------------------------------------------------


def test_a_studys_best_stands_beside_the_baseline() -> None:
    import optuna

    from audio_cls.queue.status import baseline_of, findings_of, study_status, summary
    from audio_cls.queue.storage import IDENTITY

    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, {"metric": "val/macro_f1"})
    attrs = {"config": 0, "outcome": "complete", "epochs": 1}
    judged = {
        "last": {"macro_f1": 0.2},
        "baseline": {"macro_f1": 0.229},
        "findings": ["Calls everything 'hungry': never predicts tired."],
    }
    study.add_trial(optuna.trial.create_trial(value=0.22, user_attrs=attrs))  # of a version that recorded neither
    assert (baseline_of(study_status(study)), findings_of(study_status(study))) == (None, [])
    study.add_trial(optuna.trial.create_trial(value=0.23, user_attrs={**attrs, "config": 1, **judged}))
    lines = summary(study_status(study))
    said = "best epoch, chosen on these clips (last epoch: 0.2; a model that learned nothing: 0.229)"
    assert f"best: trial 1, val/macro_f1 0.23, {said}" in lines
    assert "  Calls everything 'hungry': never predicts tired." in lines
