"""Suites and searches that began by the former training rules: they go on by them, and nothing mixes in silence."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_cls.ablation import running
from audio_cls.ablation.adoption import known_results
from audio_cls.ablation.running import _warn, start_suite
from audio_cls.ablation.stored import suite_work
from audio_cls.ablation.suite import Suite, open_suite, results, suite_cells
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.queue.cells import begun_rules, enqueue, read_cells
from audio_cls.queue.storage import load_study, open_storage, open_study
from audio_cls.runs import single
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.resolve import resolve
from audio_cls.runs.single import read_state, run_folder, run_key, train_single, write_state
from audio_cls.tracking import Tracker
from audio_cls.training.checkpoint import read
from audio_cls.training.rules import CORRECTIONS, FORMER, RULES
from tests.ablation.test_ablation import BASE, CPU, ablation
from tests.cells import run_here

ARMS: dict[str, dict[str, Any]] = {"plain": {}, "averaged": {"training.ema_decay": 0.9}}


@pytest.fixture
def tracker(tones_corpus: Path, tmp_path: Path) -> Tracker:
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    return Tracker(Workspace(tmp_path))


def started(tracker: Tracker, name: str, **changes: Any) -> Suite:
    suite = open_suite(ablation(name=name, arms=ARMS, seeds=(0,), folds=(1,), **changes), tracker, CPU)
    suite = replace(suite, storage=open_storage(tracker.workspace.optuna_db))
    start_suite(suite)
    return suite


def run_cells(suite: Suite, rules: int | None, first: int | None = None) -> list[Any]:
    work, cells = suite_work(suite.state), suite_cells(suite)
    assert suite.storage is not None
    if rules is not None:  # the cells of a suite that the former version began
        enqueue(open_study(work, suite.storage), suite.storage, cells, rules=rules)
    return run_here(work, cells, suite.tracker, first)


def test_a_suite_goes_on_by_the_rules_with_which_it_began(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = started(tracker, "old")
    run_cells(suite, FORMER)
    longer = open_suite(ablation(name="old", arms=ARMS, seeds=(0, 1), folds=(1,)), tracker, CPU)
    states = run_cells(replace(longer, storage=suite.storage), None)  # cells that join it
    assert len(states) == 4
    assert begun_rules(s.record for s in states) == FORMER
    assert all(CORRECTIONS not in s.record.facts for s in states)
    last = read(tracker.workspace.root / states[-1].record.folder / "last.safetensors").state
    assert (last["rules"], states[-1].params["arm"]) == (FORMER, "averaged")
    assert results(open_suite(ablation(name="old", arms=ARMS, seeds=(0, 1), folds=(1,)), tracker, CPU))
    said: list[str] = []
    monkeypatch.setattr(running, "say", lambda text, err=False: said.append(text))
    _warn(replace(longer, storage=suite.storage))
    assert [line.partition(". ")[0] for line in said] == [
        "suite old goes on by the training rules with which it began, without: EMA warm-up"
    ]

    fresh = started(tracker, "new")
    known = known_results(
        suite_work(fresh.state), open_study(suite_work(fresh.state), fresh.storage),  # type: ignore[arg-type]
        suite_cells(fresh), tracker, fresh.storage, torch.device("cpu"),  # type: ignore[arg-type]
    )  # fmt: skip
    assert (known.rules, [json.loads(i)["arm"] for i in known.records]) == (RULES, ["plain"])


def test_runs_of_both_rules_are_refused(tracker: Tracker) -> None:
    """As an earlier adoption would have mixed them: the record of one cell says that it was trained otherwise."""
    seeds = {"seeds": (0, 1)}
    suite = open_suite(ablation(name="mixed", arms=ARMS, folds=(1,), **seeds), tracker, CPU)
    suite = replace(suite, storage=open_storage(tracker.workspace.optuna_db))
    start_suite(suite)
    states = run_cells(suite, None)
    assert [s.record.facts.get(CORRECTIONS) for s in states] == [None, "EMA warm-up"] * 2
    facts = {k: v for k, v in states[3].record.facts.items() if k != CORRECTIONS}
    with contextlib.closing(sqlite3.connect(tracker.workspace.optuna_db)) as database, database:
        database.execute(
            "update trial_user_attributes set value_json = ? where key = 'facts' and trial_id = "
            "(select trial_id from trials where number = 3)",
            (json.dumps(facts),),
        )
    with pytest.raises(
        UserError, match=r"arm 'averaged', seed 1.*training rules is corrected in nothing, others .* EMA warm-up"
    ):
        results(open_suite(ablation(name="mixed", arms=ARMS, folds=(1,), **seeds), tracker, CPU))


def test_a_finished_single_run_of_the_former_rules_is_said_to_be_one(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(single, "say", lambda text, err=False: said.append(text))
    torch.set_num_threads(1)
    runtime = Runtime(tracker.workspace, tracker, torch.device("cpu"))
    experiment = BASE.override({"training.ema_decay": 0.9, "training.epochs": 1})
    state = train_single(experiment, runtime)
    assert state.facts[CORRECTIONS] == "EMA warm-up"
    assert said == []
    corpus = runtime.corpus(experiment.data)
    folder = run_folder(tracker.workspace, run_key(resolve(experiment, corpus).experiment.digest(), corpus.digest))
    former = read_state(folder)
    del former.facts[CORRECTIONS]
    write_state(folder, former)
    again = train_single(experiment, runtime)
    assert again.value == state.value
    assert "was trained by former training rules, without: EMA warm-up. By the present ones: --again" in said[0]


def test_cells_that_a_former_version_enqueued_say_no_rules() -> None:
    from audio_cls.queue.record import TrialRecord

    assert begun_rules([]) is None
    assert begun_rules([TrialRecord(cell={"params": {}})]) == FORMER
    assert begun_rules([TrialRecord(cell={"params": {}, "rules": 1})]) == 1


def test_what_is_read_back_names_the_rules(tracker: Tracker) -> None:
    suite = started(tracker, "one")
    assert suite.storage is not None
    enqueue(open_study(suite_work(suite.state), suite.storage), suite.storage, suite_cells(suite))
    assert {s.record.cell["rules"] for s in read_cells(load_study("ablation:one", suite.storage))} == {RULES}
