"""The test split: opened by one command, recorded before it is shown, counted, with an interval on every figure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.ablation import record
from audio_cls.ablation.opening import of_parent, of_suite, open_group, read_result
from audio_cls.ablation.page import arm_scores, build_report
from audio_cls.ablation.running import log_result, open_suite, reopen_suite, results, start_suite
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.errors import UserError
from audio_cls.experiment import Experiment
from audio_cls.metrics import evaluate, fit_thresholds
from audio_cls.openings import TEST_SCORES
from audio_cls.preparation import Runtime
from audio_cls.report.suite import suite_report
from audio_cls.runs import GridItem, run_item
from audio_cls.scores import read_scores
from audio_cls.tracking import Tracker
from audio_cls.workspace import Workspace
from tests.commands import call
from tests.test_ablation import ablation


def train(runtime: Runtime, items: list[Any], parent: str | None, kind: str) -> None:
    for item in items:
        state = run_item(item, runtime, parent=parent, kind=kind)
        assert state is not None
        assert state.state == "COMPLETE", state.reason


@pytest.fixture(scope="module")
def finished(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a complete suite (2 arms, 2 seeds, 2 folds) and a cross-validation of two folds."""
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("suite"))
    shutil.copytree(tones_corpus, workspace.corpora / "tones")
    file = workspace.root / "suite.py"
    file.write_text("# the suite of these tests\n")
    tracker = Tracker(workspace)
    runtime = Runtime(workspace, tracker, torch.device("cpu"))
    suite = open_suite(ablation(metric=("val/macro_f1", "val/map", "val/loss")), workspace, tracker, file, "cpu")
    parent, arms = start_suite(suite, file)
    items = record.grid_items(suite.ablation, suite.plan, suite.corpus, suite.state.arms)
    train(runtime, items, parent.id, "cell")
    for result in results(suite):
        log_result(result, arms)
    for run in (*arms.values(), parent):
        run.finish("COMPLETE")
    base = ablation().base.override({"optimizer.lr": 0.02})
    whole = tracker.start("tones/multiclass", "cv", kind="cross-validation", params=base.flatten())
    cells = []
    for fold in (1, 2):
        experiment = base.override({"data.split.test_fold": fold})
        tags = {"seed": "0", "fold": str(fold)}
        cells.append(GridItem(f"cv fold {fold}", experiment.to_dict(), f"cv-{fold}", tags))
    train(runtime, cells, whole.id, "fold")
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
    suite = reopen_suite("suite", workspace, tracker)
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
            assert run.metrics["test/macro_f1"] == pytest.approx(own["macro_f1"])
            assert run.metrics["test/macro_f1_low"] <= own["macro_f1"] <= run.metrics["test/macro_f1_high"]
            rows += mine
            values.append(stored.values)
        figures.append(evaluate(np.concatenate(values), corpus.targets[rows], "multiclass").overall)
    for metric in ("macro_f1", "map"):
        told = found.arms["mixup"][f"val/{metric}"]
        assert told["value"] == pytest.approx(np.mean([f[metric] for f in figures]), abs=1e-5)
        assert told["low"] <= told["value"] <= told["high"]

    # The difference is paired by seed and fold, as the verdicts on validation clips are.
    def of(arm: str, seed: int, fold: int) -> float:
        return cells[f"{arm} seed {seed} fold {fold}"].metrics["test/macro_f1"]

    pairs = [of("mixup", s, f) - of("plain", s, f) for s in (0, 1) for f in (1, 2)]
    assert found.differences["mixup"]["val/macro_f1"]["value"] == pytest.approx(np.mean(pairs))

    # Who chose what is recorded with every run, and shown by later reports.
    for run in (*cells.values(), tracker.resolve(str(suite.state.run_id))):
        again = tracker.resolve(run.run_id)
        if run.name.startswith("cv"):
            continue
        assert again.tags["test.openings"] == "1"
        assert again.tags["test.opened_by"]
        assert "judged by val/macro_f1 of the last epoch" in again.tags["test.chosen_by"]
    arm = next(r for r in tracker.runs(filter="tags.kind = 'arm'") if r.name == "mixup")
    assert arm.metrics["test/macro_f1"] == pytest.approx(found.arms["mixup"]["val/macro_f1"]["value"])
    result = results(suite)[0]
    kept = read_result(tracker, suite.state.run_id)
    assert kept == found
    page = suite_report(build_report(result, tracker, corpus, arm_scores(result, tracker, corpus), {}, kept))
    assert "Test split" in page
    assert "opened 1 time(s)" in page
    assert "has not been opened" not in page
    assert len(result.openings) == 1
    assert "and 7 more runs: opened 1 time(s)" in result.openings[0]

    # A second time only when asked, and counted; and the suite does not grow any more.
    with pytest.raises(UserError, match=r"opened before \(1 time\(s\).*--again"):
        open_group(runtime, of_suite(reopen_suite("suite", workspace, tracker)), again=False)
    twice = open_group(runtime, of_suite(reopen_suite("suite", workspace, tracker)), again=True)
    assert (twice.openings, twice.first, twice.arms) == (2, found.first, found.arms)
    with pytest.raises(UserError, match="cannot grow"):
        open_suite(
            ablation(seeds=range(3), metric=("val/macro_f1", "val/map", "val/loss")), workspace, tracker, workspace.root / "suite.py", "cpu"
        )  # fmt: skip


def test_a_suite_with_runs_left_stays_closed(workspace: Workspace) -> None:
    shutil.rmtree(next(workspace.checkpoints.glob("runs/suite.mixup.seed1.fold2.*")))
    suite = reopen_suite("suite", workspace, Tracker(workspace))
    with pytest.raises(UserError, match=r"1 of 8 runs are left .*cannot grow"):
        of_suite(suite)


def test_the_last_epochs_weights_are_needed_where_runs_are_judged_by_them(workspace: Workspace) -> None:
    for file in next(workspace.checkpoints.glob("runs/suite.plain.seed0.fold1.*")).glob("*.safetensors"):
        file.unlink()
    runtime = runtime_of(workspace)
    group = of_suite(reopen_suite("suite", workspace, runtime.tracker))
    with pytest.raises(UserError, match=r"plain seed 0 fold 1.*last epoch's weights are not in"):
        open_group(runtime, group, again=False)
    assert not [r for r in runtime.tracker.runs() if "test.openings" in r.tags]  # nothing was shown, nothing is counted


def test_a_cross_validation_is_opened_as_a_whole(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, code: int = 0) -> str:
        return " ".join(call(capsys, workspace.root, *words, code=code).split())

    assert "name one of the runs below it" in said("evaluate", "cv", code=2)
    shown = said("evaluate", "cv", "--test")
    assert "12 test clips" in shown
    assert "has been opened 1 time(s)" in shown
    assert "one configuration, given by its user; the epoch of each run by val/macro_f1" in shown
    assert "opened before" in said("evaluate", "cv", "--test", code=2)
    # A run below it was opened along with it; another run on the same clips is told of that.
    assert "opened before" in said("evaluate", "cv fold 1", "--test", code=2)
    shown = said("evaluate", "plain seed 0 fold 1", "--test")
    assert "chosen: plain, seed 0, fold 1 of suite; epoch" in shown
    assert "the same test clips were opened by 1 other run(s): cv fold 1" in shown
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
    train(runtime, [GridItem("several", experiment.to_dict(), "several", {})], None, "run")
    assert "6 test clips" in " ".join(call(capsys, tmp_path, "evaluate", "several", "--test").split())
    [run] = runtime.tracker.runs()
    stored = read_scores(runtime.tracker.download(run.run_id, TEST_SCORES))
    rows_of = [corpus.ids.index(c) for c in stored.clips]
    validation = read_scores(runtime.tracker.download(run.run_id, "scores.csv"))
    fitted = fit_thresholds(validation.values, corpus.targets[[corpus.ids.index(c) for c in validation.clips]])
    overall = evaluate(stored.values, corpus.targets[rows_of], "multilabel", thresholds=fitted).overall
    assert run.metrics["test/macro_f1"] == pytest.approx(overall["macro_f1"], abs=1e-3)
    assert run.metrics["test/map"] == pytest.approx(overall["map"], abs=1e-3)
    assert Experiment.from_json(runtime.tracker.download(run.run_id, "experiment.json").read_text()) == experiment
