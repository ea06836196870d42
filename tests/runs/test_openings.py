"""The test split: opened by one command, recorded before it is shown, counted, with an interval on every figure, and called
cross-validation where its clips chose."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.ablation.cross_validation import plan_cross_validation
from audio_cls.ablation.page import suite_report
from audio_cls.ablation.page_data import build_report
from audio_cls.ablation.planning import forecast
from audio_cls.ablation.publishing import report_suite
from audio_cls.ablation.running import log_result
from audio_cls.ablation.suite import open_suite, reopen_suite, results
from audio_cls.ablation.test_groups import of_parent, of_suite
from audio_cls.ablation.test_split import TestResult, open_group, read_result
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.experiment import Experiment
from audio_cls.metrics.baselines import baseline_figures
from audio_cls.metrics.classification import evaluate, fit_thresholds
from audio_cls.runs.opened_clips import TEST_SCORES, clip_history, named, opening_tags
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.resolve import resolve
from audio_cls.runs.scores import read_predictions
from audio_cls.runs.single import train_single
from audio_cls.tracking import Tracker
from audio_cls.training.predictions import read_scores, scores_csv
from tests.ablation.test_ablation import CPU, ablation
from tests.cells import run_here, run_suite_here
from tests.commands import call


@pytest.fixture(scope="module")
def finished(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a complete suite (2 arms, 2 seeds, 2 folds), a cross-validation of two folds, and one that keeps a third
    fold for the test."""
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("suite"))
    shutil.copytree(tones_corpus, workspace.corpora / "tones")
    file = workspace.root / "suite.py"
    file.write_text("# the suite of these tests\n")
    tracker = Tracker(workspace)
    suite = open_suite(ablation(metric=("val/macro_f1", "val/map", "val/loss")), tracker, CPU, file)
    suite, parent, arms = run_suite_here(suite)
    for result in results(suite):
        log_result(result, arms)
    for run in (*arms.values(), parent):
        run.finish("COMPLETE")
    base = ablation().base.override({"optimizer.lr": 0.02})
    kept = {"data.split": "cross_validation", "data.split.test_fold": 3, "training.epochs": 1}
    for name, folds, changes in (("cv", "1,2", {}), ("kept", "all", kept)):
        plan = plan_cross_validation(base.override(changes), suite.corpus, folds, 1, name)
        whole = tracker.start("tones/multiclass", name, kind="cross-validation", params=base.flatten())
        run_here(plan.work, [replace(cell, parent=whole.id) for cell in plan.cells], tracker)
        whole.finish("COMPLETE")
    return workspace


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(finished.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def runtime_of(workspace: Workspace) -> Runtime:
    return Runtime(workspace, Tracker(workspace), torch.device("cpu"))


def test_a_suite_is_opened_once_and_every_later_report_says_so(workspace: Workspace) -> None:
    runtime = runtime_of(workspace)
    tracker = runtime.tracker
    suite = reopen_suite("suite", tracker)
    assert read_result(tracker, suite.state.run_id) is None
    found = open_group(runtime, of_suite(suite), again=False)
    assert (found.openings, found.metrics) == (1, ["val/macro_f1", "val/map"])  # probabilities do not say the loss
    corpus = suite.corpus

    # Every cell keeps the scores of its own test fold; an arm's figure is that of the folds together, the mean over seeds.
    cells = {r.name: r for r in tracker.runs(filter="tags.kind = 'cell'")}
    figures = []
    for seed in (0, 1):
        rows, values = [], []
        for fold in (1, 2):
            run = cells[f"mixup seed {seed} fold {fold}"]
            stored = read_scores(tracker.download(run.run_id, TEST_SCORES))
            mine = [corpus.ids.index(c) for c in stored.clips]
            assert set(corpus.folds[mine]) == {fold}
            own = evaluate(stored.values, corpus.targets[mine], "multiclass").overall
            kept = {k.removeprefix("cross_validation/"): v for k, v in run.metrics.items()}
            assert kept["macro_f1"] == pytest.approx(own["macro_f1"])
            assert kept["macro_f1_low"] <= own["macro_f1"] <= kept["macro_f1_high"]
            rows += mine
            values.append(stored.values)
        figures.append(evaluate(np.concatenate(values), corpus.targets[rows], "multiclass").overall)
    for metric in ("macro_f1", "map"):
        told = found.arms["mixup"][f"val/{metric}"]
        assert told["value"] == pytest.approx(np.mean([f[metric] for f in figures]), abs=1e-5)
        assert told["low"] <= told["value"] <= told["high"]

    # The difference is paired by seed and fold, as the verdicts on validation clips are.
    def of(arm: str, seed: int, fold: int) -> float:
        return cells[f"{arm} seed {seed} fold {fold}"].metrics["cross_validation/macro_f1"]

    pairs = [of("mixup", s, f) - of("plain", s, f) for s in (0, 1) for f in (1, 2)]
    assert found.differences["mixup"]["val/macro_f1"]["value"] == pytest.approx(np.mean(pairs))

    # Who chose what is recorded with every run, and shown by later reports.
    for run in (*cells.values(), tracker.resolve(str(suite.state.run_id))):
        again = tracker.resolve(run.run_id)
        if run.name.startswith(("cv", "kept")):
            continue
        assert again.tags["test.openings"] == "1"
        assert again.tags["test.kind"] == "cross-validation"
        assert not [key for key in again.metrics if key.startswith("test/")]
        assert again.tags["test.opened_by"]
        assert "judged by val/macro_f1 of the last epoch" in again.tags["test.chosen_by"]
    arm = next(r for r in tracker.runs(filter="tags.kind = 'arm'") if r.name == "mixup")
    assert arm.metrics["cross_validation/macro_f1"] == pytest.approx(found.arms["mixup"]["val/macro_f1"]["value"])
    result = results(suite)[0]
    kept = read_result(tracker, suite.state.run_id)
    assert kept == found
    page = suite_report(build_report(result, tracker, corpus, result.scores, kept))
    assert "Cross-validation on held-out clips" in page
    assert "Test split" not in page
    assert "6 of 12 test clips are validation clips of other runs that made the choice" in page
    assert "evaluate --test suite --nested" in page
    assert "opened 1 time(s)" in page
    assert "has not been opened" not in page
    assert len(result.openings) == 1
    assert "and 7 more runs: opened 1 time(s)" in result.openings[0]

    # A second time only when asked, and counted; and the suite does not grow any more.
    with pytest.raises(UserError, match=r"opened before \(1 time\(s\).*--again"):
        open_group(runtime, of_suite(reopen_suite("suite", tracker)), again=False)
    twice = open_group(runtime, of_suite(reopen_suite("suite", tracker)), again=True, nested=True)
    assert (twice.openings, twice.first, twice.arms) == (2, found.first, found.arms)
    assert read_result(tracker, suite.state.run_id) == twice

    # Nested: each fold's arm is the one with the best mean of the fold's own validation figures.
    nested = twice.nested
    assert nested is not None
    for one in nested.folds:
        means = {
            arm: np.mean([cells[f"{arm} seed {s} fold {one['fold']}"].metrics["last/macro_f1"] for s in (0, 1)])
            for arm in ("plain", "mixup")
        }
        assert (one["arm"], one["validation"]) == (max(means, key=lambda arm: means[arm]), max(means.values()))
        assert one["test"]["val/macro_f1"] == pytest.approx(
            np.mean([of(one["arm"], seed, int(one["fold"])) for seed in (0, 1)])
        )
    again = tracker.resolve(str(suite.state.run_id))
    assert again.metrics["nested/macro_f1"] == pytest.approx(nested.figures["val/macro_f1"]["value"])
    page = suite_report(build_report(result, tracker, corpus, result.scores, twice))
    assert "Nested choice" in page
    assert "it estimates the procedure: choose among these 2 arms" in page
    with pytest.raises(UserError, match="cannot grow"):
        open_suite(ablation(seeds=range(3), metric=("val/macro_f1", "val/map", "val/loss")), tracker, CPU)


def test_an_opening_that_an_earlier_version_called_a_test_is_called_what_it_is(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    suite = reopen_suite("suite", tracker)
    run = tracker.reopen(str(suite.state.run_id))
    figures = {"plain": {"val/map": {"value": 0.5, "low": None, "high": None}}}
    old = TestResult("suite suite", 1, "2026-01-01", "2026-01-01", "ann", "by hand", 12, None, ["val/map"], figures, {})
    stored = {k: v for k, v in vars(old).items() if k not in ("kind", "overlap", "nested")}
    run.tags({"test.openings": "1"})
    run.artifact_text("test.json", json.dumps(stored))
    run.close()
    published = report_suite("suite", tracker)
    assert published.test is not None
    assert (published.test.kind, published.test.overlap[:17]) == ("cross-validation", "6 of 12 test clip")


def test_a_fold_that_no_run_validates_on_is_a_test(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, code: int = 0) -> str:
        return " ".join(call(capsys, workspace.root, *words, code=code).split())

    refused = said("evaluate", "kept", "--test", "--nested", code=2)
    assert "kept: no run validates on its 6 test clips, so that its figures on them are a test already" in refused
    shown = said("evaluate", "kept", "--test")
    assert "6 test clips" in shown
    assert "cross-validation" not in shown
    tracker = Tracker(workspace)
    runs = [tracker.resolve(f"kept fold {fold}") for fold in (1, 2)]
    assert {run.tags["test.kind"] for run in runs} == {"test"}
    stored = [read_scores(tracker.download(run.run_id, TEST_SCORES)).clips for run in runs]
    assert stored[0] == stored[1]  # the same clips, whichever fold validated


def test_a_plan_goes_by_the_runs_that_are_there(workspace: Workspace, tmp_path: Path) -> None:
    tracker = Tracker(workspace)
    own_metrics = ("val/macro_f1", "val/map", "val/loss")
    own = forecast(reopen_suite("suite", tracker))
    assert own.pilot is not None
    assert own.pilot.words == "4 pairs of finished runs of this suite"
    assert own.lines()[-1] == "nothing is left to train"
    assert [(g.seeds, g.folds) for g in own.grids if g.seeds == 1] == [(1, 1), (1, 2), (1, 3), (1, 5)]
    of_one_seed = [g.detectable for g in own.grids if g.folds == 2]
    assert of_one_seed == sorted(of_one_seed, reverse=True)  # more seeds, smaller differences
    # The suite extended after a look has less to spend at the next one.
    report_suite("suite", tracker)
    extended = forecast(open_suite(ablation(seeds=range(4), metric=own_metrics), tracker, CPU))
    assert (own.look, own.alpha) == (1, pytest.approx(0.04))
    assert extended.look == 2
    assert 0 < extended.alpha < 0.04
    assert (extended.cost.runs, extended.declared.runs) == (8, 16)
    assert "look 2 at it" in extended.lines()[0]
    following = forecast(open_suite(ablation(name="next", seeds=range(3)), tracker, CPU), workers=2)
    assert following.pilot is not None
    assert following.pilot.words == "earlier suites on this corpus: suite (4 pairs)"
    assert (following.cost.runs, following.cost.epochs) == (12, 24)
    [run] = [r for r in tracker.runs() if r.name == "mixup seed 0 fold 1"]
    assert run.metrics["final/seconds"] > 0
    assert 0 < following.cost.seconds < 24 * 60
    assert "runs of small_cnn on this corpus" in following.lines()[-1]
    # A corpus on which nothing was trained.
    fresh = Workspace(tmp_path / "fresh")
    shutil.copytree(workspace.corpora, fresh.corpora)
    guess = forecast(open_suite(ablation(), Tracker(fresh), CPU))
    assert guess.pilot is not None
    assert guess.pilot.words.startswith(
        "a guess, since no suite on this corpus has finished pairs: the sampling of 12 clips"
    )
    assert "how long is not known" in guess.lines()[-1]


def opened_run(
    tracker: Tracker,
    name: str,
    clips: list[str],
    when: str,
    tags: dict[str, str] | None = None,
    parent: str | None = None,
) -> Any:
    """A run as an earlier version recorded it: its test split opened, without a history."""
    run = tracker.start("tones/multiclass", name, kind="run", parent=parent)
    times = {"test.openings": "1", "test.first_opened": when, "test.last_opened": when, "test.opened_by": "ann"}
    run.tags({"data.digest": "d", **times, **(tags or {})})
    run.artifact_text(TEST_SCORES, scores_csv(clips, np.zeros((len(clips), 2)), ["a", "b"]))
    run.finish("COMPLETE")
    return tracker.resolve(run.id)


def test_openings_are_counted_by_clips_in_workspaces_of_earlier_versions_too(tmp_path: Path) -> None:
    tracker = Tracker(Workspace(tmp_path))
    one = opened_run(tracker, "one", ["a", "b", "c", "d"], "2026-01-01")
    opened_run(tracker, "half", ["c", "d", "e"], "2026-01-03", {"test.openings": "2", "test.last_opened": "2026-01-05"})
    opened_run(tracker, "elsewhere", ["x"], "2026-01-04")
    for arm in ("plain", "mixup"):  # opened together: one opening
        opened_run(tracker, arm, ["a"], "2026-01-02", {"ablation.suite": "s", "kind": "cell"})
    history = clip_history(tracker, ["a", "b", "c", "d"], one)
    assert [(o.what.partition(" (")[0], o.when, len(o.clips)) for o in history.openings] == [
        ("one", "2026-01-01", 4),
        ("suite s", "2026-01-02", 1),
        ("half", "2026-01-03", 2),
        ("half", "2026-01-05", 2),
    ]
    assert history.sentence().startswith("these 4 test clips have been opened 4 times: one (")
    others = history.but(named(one))
    assert others.sentence().startswith("3 of these 4 test clips have been opened 3 times: suite s on 2026-01-02; half")
    assert clip_history(tracker, ["f"], one).sentence() == ""
    # A further opening adds to what the older tags say.
    tags = opening_tags(one, named(one), "2026-02-01", "bob", ["a", "b", "c", "d"])
    tracker.reopen(one.run_id).tags(tags)
    again = clip_history(tracker, ["a"], one)
    assert [(o.when, o.who) for o in again.openings if o.what == named(one)] == [
        ("2026-01-01", "ann"),
        ("2026-02-01", "bob"),
    ]


def test_a_second_configuration_on_opened_clips_is_refused_counted_and_shown_with_both(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, code: int = 0) -> str:
        return " ".join(call(capsys, workspace.root, *words, code=code).split())

    runtime = runtime_of(workspace)
    tracker = runtime.tracker
    open_group(runtime, of_suite(reopen_suite("suite", tracker)), again=False)
    refused = said("evaluate", "cv", "--test", code=2)
    assert "cv: these 12 test clips have been opened once: suite suite on" in refused
    assert "choice between test figures" in refused
    assert "test.openings" not in tracker.resolve("cv").tags  # nothing was shown, nothing is counted
    time.sleep(1.1)  # openings are told, and sorted, to the second
    shown = said("evaluate", "cv", "--test", "--again")
    assert "these 12 test clips have been opened 2 times: suite suite on" in shown
    assert "baseline" in shown
    # The report of the suite, which was opened first, tells of the second one.
    assert re.search(
        r"TEST SPLIT these 12 test clips have been opened 2 times: suite suite on .*; cv \(",
        said("ablate", "report", "suite"),
    )
    page = (workspace.reports / "suite-suite.html").read_text(encoding="utf-8")
    assert "these 12 test clips have been opened 2 times" in page
    said("report", "plain seed 0 fold 1")
    [written] = workspace.reports.glob("run-*.html")
    assert "These 6 test clips have been opened 2 times" in written.read_text(encoding="utf-8")


def test_runs_and_arms_stand_beside_a_model_that_learned_nothing(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    suite = reopen_suite("suite", tracker)
    corpus = suite.corpus
    run = tracker.resolve("plain seed 0 fold 1")
    split = ablation().experiment("plain", 0, 1).data.split.assign(corpus)
    expected = baseline_figures(corpus.targets[split.train], corpus.targets[split.validation], "multiclass")
    assert {k: v for k, v in run.metrics.items() if k.startswith("baseline/")} == pytest.approx(
        {f"baseline/{k}": v for k, v in expected.items()}
    )
    assert "Fewer than 10 validation clips in all 3 classes (2 each)" in run.tags["findings"]
    first = results(suite)[0]
    assert first.baseline["macro_f1"] == pytest.approx(expected["macro_f1"])  # folds of equal make-up
    arm = next(r for r in tracker.runs(filter="tags.kind = 'arm'") if r.name == "mixup")
    assert arm.metrics["baseline/macro_f1"] == pytest.approx(expected["macro_f1"], abs=1e-4)


def test_a_suite_with_runs_left_stays_closed(workspace: Workspace) -> None:
    with contextlib.closing(sqlite3.connect(workspace.optuna_db)) as database, database:
        suite_id = "(select study_id from studies where study_name = 'ablation:suite')"
        database.execute(f"update trials set state = 'WAITING' where number = 7 and study_id = {suite_id}")
    suite = reopen_suite("suite", Tracker(workspace))
    with pytest.raises(UserError, match=r"1 of 8 runs are left .*cannot grow"):
        of_suite(suite)


def test_the_last_epochs_weights_are_needed_where_runs_are_judged_by_them(workspace: Workspace) -> None:
    for file in workspace.checkpoints.glob("ablation/suite/00000/*/*.safetensors"):
        file.unlink()
    runtime = runtime_of(workspace)
    group = of_suite(reopen_suite("suite", runtime.tracker))
    with pytest.raises(UserError, match=r"plain seed 0 fold 1.*last epoch's weights are not in"):
        open_group(runtime, group, again=False)
    assert not [r for r in runtime.tracker.runs() if "test.openings" in r.tags]  # nothing was shown, nothing is counted


def test_a_cross_validation_is_opened_as_a_whole(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, code: int = 0) -> str:
        return " ".join(call(capsys, workspace.root, *words, code=code).split())

    assert "name one of the runs below it" in said("evaluate", "cv", code=2)
    assert "add --test" in said("evaluate", "cv", "--nested", code=2)
    assert "chooses among arms, and there is only cv" in said("evaluate", "cv", "--test", "--nested", code=2)
    shown = said("evaluate", "cv", "--test")
    assert "12 clips held out in some fold" in shown
    assert "these figures are cross-validation, not a test" in shown
    assert "has been opened 1 time(s)" in shown
    assert "one configuration, given by its user; the epoch of each run by val/macro_f1" in shown
    assert "opened before" in said("evaluate", "cv", "--test", code=2)
    # A run below it was opened along with it; another run on the same clips is told of that.
    assert "opened before" in said("evaluate", "cv fold 1", "--test", code=2)
    # Refused like a second opening, since it makes a choice between test figures; the clips are what is counted.
    refused = said("evaluate", "plain seed 0 fold 2", "--test", code=2)
    assert "these 6 test clips have been opened once: cv (" in refused
    assert "add --again" in refused
    shown = said("evaluate", "plain seed 0 fold 2", "--test", "--again")
    assert "chosen: plain, seed 0, fold 2 of suite; epoch" in shown
    assert "6 held-out clips" in shown
    assert "note: all 6 test clips are validation clips of other runs that made the choice" in shown  # those of fold 1
    assert "has been opened 1 time(s)" in shown
    assert re.search(r"these 6 test clips have been opened 2 times: cv \(\w{8}\) on .*; plain seed 0 fold 2 \(", shown)
    assert "[0." in shown
    assert "the test split is opened for its whole suite" in said("evaluate", "mixup", "--test", code=2)
    assert "Suites: suite" in said("evaluate", "suit", "--test", code=2)
    runtime = runtime_of(workspace)
    group = of_parent(runtime.tracker, next(r for r in runtime.tracker.runs() if r.name == "cv"))
    assert {arm: sorted(cells) for arm, cells in group.runs.items()} == {"cv": [(0, 1), (0, 2)]}


def test_several_labels_a_clip_are_called_by_thresholds_fitted_on_validation_clips(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tones_corpus.parent.parent / "source" / "clips.csv"
    lines = source.read_text().splitlines()
    also = {"hum": "hum;low", "hiss": "hiss", "beep": "beep;low"}
    rows = [
        "path,labels,fold",
        *(f"{p},{also[label]},{fold}" for p, label, fold, _ in (x.split(",") for x in lines[1:])),
    ]
    (source.parent / "several.csv").write_text("\n".join(rows) + "\n")
    workspace = Workspace(tmp_path)
    prepare(
        sources.read(source.parent / "several.csv", "csv"), workspace.corpora / "several", sample_rate=8000, workers=1
    )
    corpus = Corpus.open(workspace.corpora / "several")
    assert (corpus.task, corpus.classes) == ("multilabel", ("beep", "hiss", "hum", "low"))
    runtime = runtime_of(workspace)
    experiment = ablation().base.override(
        {"data.corpus": "several", "loss": "bce", "training.epochs": 4, "data.split.test_fold": 1}
    )
    train_single(experiment, runtime, name="several")
    assert "6 test clips" in " ".join(call(capsys, tmp_path, "evaluate", "several", "--test").split())
    [run] = runtime.tracker.runs()
    stored = read_scores(runtime.tracker.download(run.run_id, TEST_SCORES))
    rows_of = [corpus.ids.index(c) for c in stored.clips]
    validation = read_scores(runtime.tracker.download(run.run_id, "scores.csv"))
    fitted = fit_thresholds(validation.values, corpus.targets[[corpus.ids.index(c) for c in validation.clips]])
    overall = evaluate(stored.values, corpus.targets[rows_of], "multilabel", thresholds=fitted).overall
    for name in (
        "macro_f1",
        "macro_f1_tuned",
        "micro_f1_tuned",
    ):  # at 0.5, and by the thresholds of the validation clips
        assert run.metrics[f"test/{name}"] == pytest.approx(overall[name], abs=1e-3)
    at_half = evaluate(validation.values, corpus.targets[[corpus.ids.index(c) for c in validation.clips]], "multilabel")
    assert run.metrics["best/macro_f1"] == pytest.approx(at_half.overall["macro_f1"], abs=1e-3)
    crossed = read_predictions(runtime.tracker, run.run_id, corpus).tuned()
    assert run.metrics["best/macro_f1_tuned"] == pytest.approx(crossed.evaluation.overall["macro_f1_tuned"], abs=1e-3)
    assert run.tags["thresholds"].startswith("cross-fitted over 5 parts")
    shown = " ".join(call(capsys, tmp_path, "evaluate", "several").split())
    assert "macro_f1_tuned" in shown
    assert "by thresholds cross-fitted over 5 parts: no clip is called by a threshold that it tuned" in shown
    assert run.metrics["test/map"] == pytest.approx(overall["map"], abs=1e-3)
    assert (
        Experiment.from_json(runtime.tracker.download(run.run_id, "experiment.json").read_text())
        == resolve(experiment, corpus).experiment
    )
