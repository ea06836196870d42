"""Runs over folds of data that names none: what is asked, what each fold is called, and what records and pages say."""

from __future__ import annotations

import csv
import io
from math import isnan, nan

import pytest

from audio_cls.ablation.contract import check_plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.page import suite_report
from audio_cls.ablation.page_data import build_report
from audio_cls.ablation.results import fold_rows
from audio_cls.ablation.suite import open_suite, reopen_suite, results
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.data.groups import shared_groups_notes
from audio_cls.experiment import Experiment
from audio_cls.queue.options import QueueOptions
from audio_cls.report.description import describe
from audio_cls.runs.folds import asked_folds, fold_csv, fold_figures, fold_label, fold_table, grid_text
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.single import train_single
from audio_cls.tracking import Tracker
from tests.ablation.test_ablation import ARMS, SMALL
from tests.cells import run_suite_here
from tests.commands import call
from tests.conftest import write_tones

SPEAKERS = ("alice", "bob", "carol")
BASE = Experiment().override({**SMALL, "data.corpus": "speakers", "training.epochs": 1})
LEFT_OUT = BASE.override({"data.split": "leave_one_group_out"})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a corpus of 18 clips by three speakers, who stand on both sides of its published split."""
    from audio_cls.data import sources
    from audio_cls.data.packing import prepare

    workspace = Workspace(tmp_path_factory.mktemp("speakers"))
    table = write_tones(workspace.root / "source", n_per_class=6)
    rows = [line.split(",")[:2] for line in table.read_text().splitlines()[1:]]
    lines = [f"{path},{label},{SPEAKERS[i % 3]},{('train', 'train', 'test')[i // 3 % 3]}" for i, (path, label) in enumerate(rows)]  # fmt: skip
    table.write_text("\n".join(["path,label,group,split", *lines]) + "\n")
    prepare(sources.read(table, "csv"), workspace.corpora / "speakers", sample_rate=8000, workers=1)
    return workspace


@pytest.fixture(scope="module")
def corpus(workspace: Workspace) -> Corpus:
    return Corpus.open(workspace.corpora / "speakers")


def runtime_of(workspace: Workspace) -> Runtime:
    import torch

    torch.set_num_threads(1)
    return Runtime(workspace, Tracker(workspace), torch.device("cpu"))


def test_folds_are_asked_by_number_or_by_group(corpus: Corpus) -> None:
    assert asked_folds(LEFT_OUT, corpus, None) == (None, [None])
    assert asked_folds(LEFT_OUT, corpus, "all") == ("data.split.fold", [1, 2, 3])
    assert asked_folds(LEFT_OUT, corpus, "carol, 1,carol") == ("data.split.fold", [3, 1])
    generated = BASE.override({"data.split": "k_fold", "data.split.k": 3})
    assert asked_folds(generated, corpus, "all") == ("data.split.fold", [1, 2, 3])


@pytest.mark.parametrize(
    ("split", "folds", "said"),
    [
        ("leave_one_group_out", "bop", "no fold 'bop'.*1 .alice., 2 .bob., 3 .carol.. Did you mean 'bob'"),
        ("k_fold", "6", "no fold '6'.*1, 2, 3, 4, 5"),
        ("k_fold", "9" * 5000, "no fold '9999"),
        ("k_fold", "", "no fold ''"),
        ("k_fold", "²", "no fold '²'"),
        ("cross_validation", "all", "names no folds, which data.split.kind=cross_validation takes; data.split.kind=k_fold makes folds"),
        ("grouped", "all", "Kinds with folds: cross_validation, folds, k_fold, leave_one_group_out"),
    ],
)  # fmt: skip
def test_folds_that_are_not_there(corpus: Corpus, split: str, folds: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        asked_folds(BASE.override({"data.split": split}), corpus, folds)


def test_a_table_has_a_row_for_each_fold() -> None:
    runs = [
        (2, "bob", {"accuracy": 0.5, "auc": 0.7}, {"accuracy": 0.4}),
        (1, "alice", {"accuracy": 0.25, "auc": nan}, {"accuracy": 0.2}),
        (2, "bob", {"accuracy": 1.0, "auc": 0.9}, {"accuracy": 0.6}),
    ]
    figures = fold_figures(runs)
    assert [(f.fold, f.name, f.runs, f.best["accuracy"], f.last["accuracy"]) for f in figures] == [
        (1, "alice", 1, 0.25, 0.2), (2, "bob", 2, 0.75, 0.5),
    ]  # fmt: skip
    assert isnan(figures[0].best["auc"])
    columns, rows = fold_table(figures, ["accuracy"])
    assert columns == ["fold", "left out", "runs", "accuracy best", "accuracy last"]
    assert rows[1] == [2, "bob", 2, 0.75, 0.5]
    assert "left out" not in fold_table(fold_figures([(1, "1", {"accuracy": 1.0}, {})]), ["accuracy"])[0]
    read = list(csv.DictReader(io.StringIO(fold_csv(figures))))
    assert [(r["name"], r["best/auc"], r["last/accuracy"]) for r in read] == [("alice", "nan", "0.2"), ("bob", "0.8", "0.5")]  # fmt: skip
    assert (fold_label(3, "3"), fold_label(3, "carol")) == ("fold 3", "fold 3 (carol)")
    assert grid_text(folds=60, seeds=3) == "60 folds x 3 seeds = 180 runs"
    assert grid_text(arms=1, seeds=1) == "1 arm x 1 seed = 1 run"


@pytest.fixture(scope="module")
def suite(workspace: Workspace) -> Workspace:
    """The workspace after a suite that leaves out one speaker after the other."""
    file = workspace.root / "suite.py"
    file.write_text("# the suite of these tests\n")
    declared = Ablation("speakers", base=LEFT_OUT, reference="plain", arms=ARMS, seeds=(0,), folds="all")
    opened = open_suite(declared, Tracker(workspace), QueueOptions(device="cpu"), file)
    _, parent, arms = run_suite_here(opened)
    for run in (*arms.values(), parent):
        run.finish("COMPLETE")
    return workspace


def test_a_suite_leaves_out_one_group_after_the_other(suite: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(suite)
    cells = [r for r in tracker.runs() if r.tags["kind"] == "cell"]
    assert sorted((r.tags["fold"], r.tags["split.fold_name"]) for r in cells) == sorted(
        (str(k), name) for k, name in enumerate(SPEAKERS, start=1) for _ in ARMS
    )
    assert {"plain seed 0 fold 2 (bob)"} <= {r.name for r in cells}
    opened = reopen_suite("speakers", tracker)
    result = results(opened)[0]
    assert dict(result.terms)["split"] == "leave_one_group_out, folds 1 (alice), 2 (bob), 3 (carol)"
    assert dict(result.terms)["runs"] == "2 arms x 1 seed x 3 folds = 6 runs"
    assert result.arms[1].comparison is not None
    assert result.arms[1].comparison.n == 3
    columns, rows = fold_rows(result)
    assert columns == ["fold", "left out", "plain", "mixup"]
    plain = {r.tags["fold"]: r.metrics["last/macro_f1"] for r in cells if r.name.startswith("plain")}
    assert [row[:3] for row in rows] == [
        [k, name, pytest.approx(100 * plain[str(k)], abs=1e-3)] for k, name in enumerate(SPEAKERS, start=1)
    ]
    page = suite_report(build_report(result, tracker, opened.corpus, {}))
    assert "val/macro_f1 by fold, points" in page
    assert page.count("carol") >= 3
    shown = call(capsys, suite.root, "ablate", "report", "speakers")
    assert [line.split()[:2] for line in shown.splitlines() if line.split()[1:2] and line.split()[1] in SPEAKERS] == [
        [str(k), name] for k, name in enumerate(SPEAKERS, start=1)
    ]


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("folds", "names no folds for data.split.kind=folds: set data.split=k_fold, which makes folds"),
        ("k_fold", "fold 1: 'clips' has 3 groups, which cannot be divided into data.split.k=5 folds"),
    ],
)
def test_a_suite_whose_folds_cannot_be_made(corpus: Corpus, split: str, said: str) -> None:
    base = BASE.override({"data.split": split})
    with pytest.raises(UserError, match=said):
        check_plan(Ablation("speakers", base=base, reference="plain", arms=ARMS, folds="all"), corpus)


def test_shared_groups_are_said_wherever_figures_stand(
    workspace: Workspace, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert describe(corpus).shared_groups == {"splits": 3}
    [note] = shared_groups_notes(corpus)
    assert "3 of 3 groups" in note
    assert "data.split.allow_shared_groups=true" in note
    assert note in call(capsys, workspace.root, "data", "describe", "speakers")

    with pytest.raises(
        UserError, match=r"3 groups on two sides of the split: 'alice' .*data.split.allow_shared_groups=true"
    ):
        BASE.override({"data.split": "official"}).data.split.assign(corpus)
    allowed = BASE.override({"data.split": "official", "data.split.allow_shared_groups": True})
    state = train_single(allowed, runtime_of(workspace), name="shared")
    said = "3 groups stand on more than one side of the split (data.split.allow_shared_groups=true)"
    assert state.facts["split.shared_groups"].startswith(said)
    tracker = Tracker(workspace)
    info = tracker.resolve(str(state.run_id))
    assert info.tags["split.shared_groups"].startswith(said)
    assert info.params["data.split.allow_shared_groups"] == "true"
    assert f"Note: {said}" in tracker.download(info.run_id, "report.html").read_text(encoding="utf-8")
    assert said in call(capsys, workspace.root, "evaluate", info.run_id)
    assert said in call(capsys, workspace.root, "evaluate", info.run_id, "--test")
    base = Ablation("shared", base=allowed, reference="plain", arms=ARMS, folds=None)
    assert dict(check_plan(base, corpus).terms)["groups"].startswith(said)


def test_nothing_is_said_where_groups_are_kept_whole(workspace: Workspace, suite: Workspace, corpus: Corpus) -> None:
    runs = [r for r in Tracker(workspace).runs() if r.tags["kind"] == "cell"]
    assert runs
    assert not any("split.shared_groups" in r.tags for r in runs)
