"""Suites, cross-validations and confirmations on the queue: killed, taken up, extended, adopted, converted, shared by two boxes."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.ablation.adoption import known_results
from audio_cls.ablation.cross_validation import cross_validate, plan_cross_validation
from audio_cls.ablation.running import run_suite, start_suite
from audio_cls.ablation.stored import suite_work
from audio_cls.ablation.suite import open_suite, reopen_suite, results, suite_cells, tuned
from audio_cls.core.errors import UserError
from audio_cls.core.stopping import Interrupted, StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.queue.cells import CellState, read_cells
from audio_cls.queue.storage import load_study, open_storage, open_study, study_names
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.single import SingleRun, continue_run, train_single
from audio_cls.tracking import Tracker
from audio_cls.training.checkpoint import read
from tests.ablation.test_ablation import ARMS, BASE, CPU, SMALL, ablation
from tests.cells import run_here, run_suite_here
from tests.commands import call
from tests.own_parts import command
from tests.servers import Missing, PostgreSQL, mlflow_server

FILE = """
from audio_cls.ablation.declaration import Ablation
from audio_cls.experiment import Experiment
BASE = Experiment().override({small!r})
ABLATION = Ablation("lines", base=BASE, reference="plain", folds=(1, 2), seeds=(0,), arms={arms!r})
"""


@pytest.fixture
def workspace(tones_corpus: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    return Workspace(tmp_path)


def cells_of(workspace: Workspace, study: str = "ablation:lines") -> list[CellState]:
    return read_cells(load_study(study, open_storage(workspace.optuna_db)))


def figures(states: list[CellState]) -> dict[str, Any]:
    """What must be equal bit for bit, however a suite was disturbed."""
    return {s.id: (s.state, s.value, s.record.metrics, s.record.last, s.record.best_epoch) for s in states}


def weights(workspace: Workspace, state: CellState) -> dict[str, torch.Tensor]:
    """The last weights of a cell; where its last attempt found the training done, they lie with the attempt that did it."""
    folder = workspace.root / state.record.folder
    kept = [folder / "last.safetensors", *sorted(folder.parent.glob("*/last.safetensors"), reverse=True)]
    return read(next(file for file in kept if file.exists())).tensors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# -- in this process -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the finished suite `first`: two arms, one seed, two folds."""
    workspace = Workspace(tmp_path_factory.mktemp("first"))
    shutil.copytree(tones_corpus, workspace.corpora / "tones")
    _, parent, arms = run_suite_here(open_suite(ablation(name="first", seeds=(0,)), Tracker(workspace), CPU))
    for run_ in (*arms.values(), parent):
        run_.finish("COMPLETE")
    return workspace


@pytest.fixture
def copied(finished: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(finished.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_what_another_suite_has_finished_is_taken_over_and_said(
    copied: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(copied)
    arms = {"base": {}, "mixed": ARMS["mixup"]}
    suite = open_suite(ablation(name="second", seeds=(0,), arms=arms, reference="base"), tracker, CPU)
    outcome = run_suite(suite, CPU)  # nothing is left to train: no worker is started
    assert outcome.filled.adopted == {"ablation:first": 4}
    first, second = cells_of(copied, "ablation:first"), cells_of(copied, "ablation:second")
    assert [s.value for s in first] == [s.value for s in second]
    assert [s.record.adopted_from["trial"] for s in second] == [s.number for s in first]
    runs = {r.run_id: r for r in tracker.runs()}
    for mine, source in zip(second, first, strict=True):
        copy, original = runs[str(mine.record.mlflow_run_id)], runs[str(source.record.mlflow_run_id)]
        assert copy.run_id != original.run_id
        assert copy.params["ablation.suite"] == "second"
        assert runs[str(copy.parent)].name == mine.params["arm"] == copy.params["ablation.arm"]
        assert copy.tags["adopted_from"] == f"ablation:first, run {original.run_id}"
        assert copy.metrics == original.metrics
    shown = call(capsys, copied.root, "ablate", "report", "second")
    words = "4 of 4 runs were taken over from ablation:first: the same experiments on the same data"
    assert words in shown
    assert words in (copied.reports / "suite-second.html").read_text(encoding="utf-8")
    assert "taken over from ablation:first" in call(capsys, copied.root, "ablate", "status", "second")
    again = run_suite(open_suite(ablation(name="second", seeds=(0,), arms=arms, reference="base"), tracker, CPU), CPU)
    assert again.filled.adopted == {}
    assert len(tracker.runs(filter="tags.kind = 'cell'")) == 8


def test_a_cross_validation_takes_over_a_single_run_and_the_cells_of_a_suite(copied: Workspace) -> None:
    tracker = Tracker(copied)
    third = BASE.override({"data.split.test_fold": 3})
    torch.set_num_threads(1)
    single = train_single(third, Runtime(copied, tracker, torch.device("cpu")))
    plan = plan_cross_validation(BASE, Corpus.open(copied.corpora / "tones"), "1,2,3", 1, "cv")
    outcome = cross_validate(plan, tracker, CPU)
    assert outcome.filled.adopted == {"a single run": 1, "ablation:first": 2}
    assert [s.record.metrics["macro_f1"] for s in outcome.complete][2] == single.metrics["macro_f1"]
    [parent] = [r for r in tracker.runs() if r.name == "cv"]
    below = [r for r in tracker.runs() if r.parent == parent.run_id]
    assert sorted(r.tags["kind"] for r in below) == ["fold"] * 3
    assert parent.metrics["mean/best/macro_f1"] == pytest.approx(
        np.mean([s.record.metrics["macro_f1"] for s in outcome.complete])
    )


def test_a_run_that_was_computed_otherwise_or_shown_its_test_clips_is_not_taken_over(copied: Workspace) -> None:
    tracker = Tracker(copied)
    [opened] = [r for r in tracker.runs() if r.name == "plain seed 0 fold 1"]
    tracker.reopen(opened.run_id).tags({"test.openings": "1"})
    suite = open_suite(ablation(name="second", seeds=(0,)), tracker, CPU)
    suite = replace(suite, storage=open_storage(copied.optuna_db))
    start_suite(suite)
    work, cells = suite_work(suite.state), suite_cells(suite)
    assert suite.storage is not None
    study = open_study(work, suite.storage)
    assert known_results(work, study, cells, tracker, suite.storage, torch.device("cuda")).records == {}
    known = known_results(work, study, cells, tracker, suite.storage, torch.device("cpu"))
    assert len(known.records) == 3
    assert cells[0].id not in known.records


def test_failed_cells_are_trained_anew_when_asked_and_finished_ones_never(copied: Workspace) -> None:
    with contextlib.closing(sqlite3.connect(copied.optuna_db)) as database, database:
        database.execute("update trials set state = 'FAIL' where number = 1")
        database.execute(
            "update trial_user_attributes set value_json = '\"failed\"' where key = 'outcome' and trial_id = 2"
        )
    before = cells_of(copied, "ablation:first")
    assert [s.state for s in before] == ["COMPLETE", "FAILED", "COMPLETE", "COMPLETE"]
    suite = open_suite(ablation(name="first", seeds=(0,)), Tracker(copied), CPU)
    assert run_suite(suite, CPU).filled.left == 0
    assert cells_of(copied, "ablation:first") == before
    work, cells = suite_work(suite.state), suite_cells(suite)
    again = run_here(work, cells, Tracker(copied), again=[cells[1].id])
    assert [s.state for s in again] == ["COMPLETE"] * 4
    assert again[1].record.mlflow_run_id != before[1].record.mlflow_run_id
    assert [again[i] for i in (0, 2, 3)] == [before[i] for i in (0, 2, 3)]
    assert again[1].record.last == before[1].record.last


# -- of earlier versions ---------------------------------------------------------------------------------------------


def as_before_the_queue(suite: Any, done: int) -> dict[str, str]:
    """Lay a suite out as versions before the queue did: `done` cells finished, one begun; the runs by cell."""
    workspace, tracker = suite.workspace, suite.tracker
    scratch = replace(suite, storage=open_storage(workspace.root / "scratch.db"))
    parent, arms = start_suite(scratch)
    torch.set_num_threads(1)
    runs = {}
    for i, cell in enumerate(suite_cells(suite)[: done + 1]):
        stop = StopRequest(grace=0.0)

        def tell(phase: str, n: int, total: int, stop: StopRequest = stop, begun: bool = i == done) -> None:
            if begun and phase == "epoch 2":
                stop.ask("SIGTERM")

        runtime = Runtime(workspace, tracker, torch.device("cpu"), watch=Watch(stop, tell))
        state = continue_run(SingleRun(cell.name, cell.experiment, cell.former, cell.tags), runtime)  # type: ignore[arg-type]
        assert state.state == ("INTERRUPTED" if i == done else "COMPLETE")
        assert state.run_id is not None
        tags = {"kind": "cell", "mlflow.parentRunId": str(cell.parent)}
        tracker.reopen(state.run_id)._do({"op": "tags", "values": tags})
        tracker.reopen(state.run_id)._do({"op": "params", "values": dict(cell.run_params)})
        runs[cell.id] = state.run_id
    for run_ in (*arms.values(), parent):
        run_.finish("INTERRUPTED")
    path = workspace.checkpoints / "suites" / f"{suite.state.name}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(suite.state)))
    for left in workspace.root.glob("scratch.db*"):
        left.unlink()
    return runs


def test_a_suite_of_an_earlier_version_is_converted_and_goes_on_bit_for_bit(workspace: Workspace) -> None:
    tracker, declared = Tracker(workspace), ablation(name="lines", seeds=(0,))
    runs = as_before_the_queue(open_suite(declared, tracker, CPU), done=2)
    assert not workspace.optuna_db.exists()
    suite = reopen_suite("lines", tracker)
    assert results(suite)[0].state == "under way: 2 of 4 runs"
    assert [s.state for s in cells_of(workspace)] == ["COMPLETE", "COMPLETE", "WAITING", "WAITING"]
    states = run_here(suite_work(suite.state), suite_cells(suite), tracker)
    assert [s.state for s in states] == ["COMPLETE"] * 4
    assert [s.record.mlflow_run_id for s in states[:3]] == list(runs.values())
    assert states[2].record.epochs == 2
    assert results(reopen_suite("lines", tracker))[0].state == "complete: 4 of 4 runs"
    other = Workspace(workspace.root / "other")
    other.root.mkdir()
    (other.root / "corpora").symlink_to(workspace.corpora)
    run_suite_here(open_suite(declared, Tracker(other), CPU))
    undisturbed = cells_of(other)
    assert [s.record.last for s in states] == [s.record.last for s in undisturbed]
    for mine, theirs in zip(states, undisturbed, strict=True):
        assert equal(weights(workspace, mine), weights(other, theirs)), mine.id


def test_a_suite_of_an_earlier_version_on_a_read_only_share_names_the_command(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(workspace)
    as_before_the_queue(open_suite(ablation(name="lines", seeds=(0,)), tracker, CPU), done=0)
    monkeypatch.setattr(Workspace, "read_only", property(lambda self: True))
    with pytest.raises(UserError, match="read-only, and `audio-cls ablate report lines` writes there"):
        reopen_suite("lines", tracker)


# -- processes that are killed, boxes that share -----------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from audio_cls.ablation.declaration import load_ablation
from audio_cls.ablation.running import run_suite
from audio_cls.ablation.suite import open_suite
from audio_cls.core.workspace import Workspace
from audio_cls.queue.options import QueueOptions
from audio_cls.tracking import Tracker
file, workers, storage = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
options = QueueOptions(storage=storage, workers=workers, device="cpu", threads=1, poll_seconds=0.2)
tracker = Tracker(Workspace.find())
run_suite(open_suite(load_ablation(file), tracker, options, file), options)
"""


def start(folder: Path, workers: int, storage: str = "", tracking: str = "") -> subprocess.Popen[str]:
    """Run the suite of `folder/lines.py` in a process of its own, with one thread for each worker."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    env = {**os.environ, **Workspace(folder, tracking or None).environment(), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(folder / "lines.py"), str(workers), storage]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_workers_and_a_killed_supervisor_cost_no_bit(workspace: Workspace) -> None:
    small = {**SMALL, "training.epochs": 24}
    (workspace.root / "lines.py").write_text(FILE.format(small=small, arms=ARMS))
    process = start(workspace.root, workers=2)
    try:

        def begun() -> list[CellState]:
            return [s for s in cells_of(workspace) if s.epochs > 2] if started() else []

        def started() -> bool:
            return workspace.optuna_db.exists() and "ablation:lines" in names(workspace)

        until(lambda: any(s.state == "RUNNING" for s in begun()), process)
        victim = next(s for s in begun() if s.state == "RUNNING")
        os.kill(int(victim.record.worker.split("|")[2]), signal.SIGKILL)  # type: ignore[union-attr]
        until(lambda: any(s.record.attempt == 1 and s.epochs > victim.epochs for s in begun()), process)
    finally:
        process.kill()
        process.communicate()
    assert not all(s.state == "COMPLETE" for s in cells_of(workspace))
    again = start(workspace.root, workers=2)
    out, _ = again.communicate(timeout=600)
    assert again.returncode == 0, out
    states = cells_of(workspace)
    other = Workspace(workspace.root / "other")
    other.root.mkdir()
    (other.root / "corpora").symlink_to(workspace.corpora)
    declared = ablation(name="lines", seeds=(0,), base=BASE.override({"training.epochs": 24}))
    run_suite_here(open_suite(declared, Tracker(other), CPU))
    assert figures(states) == figures(cells_of(other))
    for mine, theirs in zip(states, cells_of(other), strict=True):
        assert equal(weights(workspace, mine), weights(other, theirs)), mine.id
    runs = [r for r in Tracker(workspace).runs() if r.tags["kind"] == "cell"]
    assert sorted(r.run_id for r in runs) == sorted(str(s.record.mlflow_run_id) for s in states)  # none twice
    curve = Tracker(workspace).curve(str(states[0].record.mlflow_run_id), "val/macro_f1")
    assert [step for step, _ in curve] == list(range(24))


def names(workspace: Workspace) -> list[str]:
    return study_names(open_storage(workspace.optuna_db), None)


@pytest.fixture
def servers(postgresql_server: PostgreSQL, tmp_path: Path) -> Iterator[tuple[str, str]]:
    try:
        with mlflow_server(tmp_path / "server") as tracking:
            yield postgresql_server.create("suites"), tracking.address
    except Missing as why:
        pytest.skip(str(why))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_boxes_share_one_ablation_and_run_no_cell_twice(
    tones_corpus: Path, tmp_path: Path, servers: tuple[str, str]
) -> None:
    storage, tracking = servers
    boxes = []
    for name in ("a", "b"):
        box = Workspace(tmp_path / name, tracking)
        box.root.mkdir()
        (box.root / "corpora").symlink_to(tones_corpus.parent)
        (box.root / "lines.py").write_text(
            FILE.format(small={**SMALL, "training.epochs": 16}, arms=ARMS).replace("seeds=(0,)", "seeds=(0, 1)")
        )
        boxes.append(box)
    processes = [start(box.root, 1, storage, tracking) for box in boxes]
    for process in processes:
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
    states = read_cells(load_study("ablation:lines", open_storage(storage)))
    assert [(s.state, s.number, s.record.attempt) for s in states] == [("COMPLETE", i, 0) for i in range(8)]
    trained = [{p.name for p in box.checkpoints.glob("ablation/lines/*")} for box in boxes]
    assert all(trained), "both took part"
    assert not trained[0] & trained[1]
    assert len(trained[0] | trained[1]) == 8
    tracker = Tracker(boxes[0])
    runs = tracker.runs()
    assert sorted(r.tags["kind"] for r in runs) == ["arm"] * 2 + ["cell"] * 8 + ["suite"]
    for box in boxes:
        summed = results(reopen_suite("lines", Tracker(box), storage))
        assert summed[0].state == "complete: 8 of 8 runs"


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_arm_gets_the_same_search_first(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    file = workspace.root / "lines.py"
    text = FILE.format(small=SMALL, arms=ARMS).replace("import Ablation", "import Ablation, Tune")
    space = 'lambda trial: {"optimizer.lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True)}'
    file.write_text(text.replace("arms=", f"tune=Tune({space}, trials=3), arms="))
    assert "lines.mixup" in command(capsys, workspace.root, "ablate", "run", str(file), "--workers", "2")
    suite = reopen_suite("lines", Tracker(workspace))
    found = suite.state.tuned
    assert found.keys() == ARMS.keys()
    for state in cells_of(workspace):
        assert json.loads(state.record.experiment)["optimizer"]["lr"] == found[str(state.params["arm"])]["optimizer.lr"]
    assert results(suite)[0].state == "complete: 4 of 4 runs"
    assert tuned(suite.ablation, suite.state).arm("mixup").optimizer.lr == found["mixup"]["optimizer.lr"]


@pytest.mark.slow
def test_folds_give_pooled_out_of_fold_predictions(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    base = BASE.override({"data.split": "k_fold", "data.split.k": 3, "data.split.seed": 1})
    (workspace.root / "base.json").write_text(base.to_json())
    words = ("train", str(workspace.root / "base.json"), "--folds", "all", "--name", "cv")
    shown = command(capsys, workspace.root, *words)
    assert "cv: 3 folds x 1 seed = 3 runs" in shown.splitlines()
    before = {s.id: s.record.mlflow_run_id for s in cells_of(workspace, names(workspace)[0])}
    shown = command(capsys, workspace.root, *words, "--seeds", "2", "--workers", "2")  # three more join the three
    assert "cv: 3 folds x 2 seeds = 6 runs" in shown.splitlines()
    after = {s.id: s.record.mlflow_run_id for s in cells_of(workspace, names(workspace)[0])}
    assert len(after) == 6
    assert before.items() <= after.items()
    assert "cv: by fold" in shown
    assert "out-of-fold" in shown
    tracker = Tracker(workspace)
    [parent] = [r for r in tracker.runs() if r.name == "cv"]
    with open(tracker.download(parent.run_id, "predictions_oof.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    corpus = Corpus.open(workspace.corpora / "tones")
    assert sorted((r["seed"], r["clip"]) for r in rows) == sorted((s, c) for s in "01" for c in corpus.ids)
    with open(tracker.download(parent.run_id, "folds.csv"), newline="", encoding="utf-8") as file:
        by_fold = list(csv.DictReader(file))
    assert [(row["fold"], row["runs"]) for row in by_fold] == [("1", "2"), ("2", "2"), ("3", "2")]
    mean = np.mean([float(row["best/accuracy"]) for row in by_fold])
    assert parent.metrics["mean/best/accuracy"] == pytest.approx(mean, abs=1e-5)
    accuracy = np.mean([r["true"] == r["predicted"] for r in rows])
    assert parent.metrics["best/oof_accuracy"] == pytest.approx(accuracy)
    assert parent.metrics["last/oof_accuracy"] <= 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_is_confirmed_on_fresh_seeds(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    file = workspace.root / "study.py"
    file.write_text(
        "from audio_cls.experiment import Experiment\nfrom audio_cls.study import Study, NoPruning, RandomSearch\n"
        f"BASE = Experiment().override({SMALL!r})\n"
        'def space(trial):\n    return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}\n'
        'STUDY = Study("s", base=BASE, space=space, sampler=RandomSearch(seed=1), pruner=NoPruning())\n'
    )
    command(capsys, workspace.root, "study", "run", str(file), "--trials", "3")
    shown = command(capsys, workspace.root, "study", "confirm", "s", "--top", "2", "--seeds", "2", "--folds", "1,2")
    assert "regression to the mean" in shown
    fresh = [r for r in Tracker(workspace).runs() if r.tags["kind"] == "cell"]
    assert len(fresh) == 8
    assert {r.params["seed"] for r in fresh} == {"10000", "10001"}
    shown = command(capsys, workspace.root, "study", "confirm", "s", "--top", "1", "--seeds", "1", "--grace", "5")
    assert "mean of 1 configuration)" in shown
    shown = command(capsys, workspace.root, "study", "status")
    assert "confirmation" not in shown  # searches only
    assert "confirmation:s" in command(capsys, workspace.root, "ablate", "list")


def test_an_interrupted_suite_leaves_without_its_report(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a cross-validation: one sentence, code 130."""
    file = workspace.root / "lines.py"
    file.write_text(FILE.format(small=SMALL, arms=ARMS))
    monkeypatch.setattr("audio_cls.ablation.filling.run_cells", lambda *_, **__: None)  # asked to leave at once
    shown = call(capsys, workspace.root, "ablate", "run", str(file), code=130)
    assert "4 of 4 runs are left; the same command goes on with them" in shown
    assert not (workspace.root / "reports").exists()
    runs = {r.name: r.state for r in Tracker(workspace).runs()}
    assert runs == {"suite lines": "INTERRUPTED", "plain": "INTERRUPTED", "mixup": "INTERRUPTED"}
    assert "0 of 4 configurations finished" in call(capsys, workspace.root, "ablate", "status", "lines")
    (workspace.root / "base.json").write_text(BASE.to_json())
    words = ("train", str(workspace.root / "base.json"), "--folds", "1,2")
    assert "2 of 2 runs are left; the same command goes on" in call(capsys, workspace.root, *words, code=130)


def test_a_suite_is_extended_by_seeds_folds_and_arms_and_refused_when_changed(
    copied: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(copied)
    before = cells_of(copied, "ablation:first")
    more = {**ARMS, "both": {"augment.mixup.alpha": 0.4, "augment.specaugment": "on"}}
    grown = open_suite(ablation(name="first", seeds=(0, 1), folds=(1, 2, 3), arms=more), tracker, CPU)
    assert len(grown.plan.cells) == 2 * 3 * 3
    filled = fill_nothing(grown)
    assert cells_of(copied, "ablation:first")[:4] == before
    assert filled == {"COMPLETE": 4, "WAITING": 14}
    assert "base.training.epochs: 2 -> 3" in call(capsys, copied.root, "ablate", "run", str(written(copied, 3)), code=2)


def fill_nothing(suite: Any) -> dict[str, int]:
    """Enqueue the cells of a suite; none is run."""
    start_suite(suite)
    states = run_here(suite_work(suite.state), suite_cells(suite), suite.tracker, first=0)
    words = [s.state for s in states]
    return {word: words.count(word) for word in sorted(set(words))}


def written(workspace: Workspace, epochs: int) -> Path:
    file = workspace.root / "changed.py"
    text = FILE.format(small={**SMALL, "training.epochs": epochs}, arms=ARMS)
    file.write_text(text.replace('"lines"', '"first"'))
    return file


def test_again_trains_anew_what_is_there(copied: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a result of another suite nor an own one is taken then."""
    tracker, corpus = Tracker(copied), Corpus.open(copied.corpora / "tones")
    monkeypatch.setattr("audio_cls.ablation.filling.run_cells", lambda *_, **__: None)  # no worker
    plan = plan_cross_validation(BASE, corpus, "1,2", 1, "cv")
    with pytest.raises(Interrupted, match="2 of 2 runs are left"):
        cross_validate(plan, tracker, CPU, again=True)
    assert [s.state for s in cells_of(copied, plan.work.name)] == ["WAITING"] * 2
    run_here(plan.work, plan.cells, tracker)
    assert cross_validate(plan, tracker, CPU).filled.left == 0
    with pytest.raises(Interrupted, match="2 of 2 runs are left"):
        cross_validate(plan, tracker, CPU, again=True)
    assert [s.record.mlflow_run_id for s in cells_of(copied, plan.work.name)] == [None, None]
