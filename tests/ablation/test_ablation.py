"""Suites: what a declaration refuses, what the contract refuses, and that a grid is resumed, extended and told rightly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_cls.ablation import contract, record, stored
from audio_cls.ablation.collapse import collapse_findings, mark_collapsed
from audio_cls.ablation.confirmation import confirmation_cells
from audio_cls.ablation.contract import check_plan, optimiser_steps, present, undeclared
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.looks import Looks
from audio_cls.ablation.predictions import pooled_by_seed
from audio_cls.ablation.ranking import Candidate, former_note, judged_by, rank, ranking_lines, ranking_table
from audio_cls.ablation.recorded_contract import check_records
from audio_cls.ablation.results import summarise
from audio_cls.ablation.suite import open_suite, reopen_suite, results
from audio_cls.components.models.cnn4 import Cnn4
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.queue.cells import CellState, read_cells
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.record import TrialRecord
from audio_cls.queue.storage import load_study, open_storage
from audio_cls.runs.scores import read_predictions
from audio_cls.tracking import Tracker
from audio_cls.training.predictions import corpus_predictions, read_scores, scores_csv
from tests.cells import run_suite_here
from tests.commands import call

SMALL = {
    "data.corpus": "tones", "data.split": "folds", "data.sample_rate": 8000, "data.clip_seconds": 1.0, "features.n_fft": 256, "features.hop_length": 128,
    "features.n_mels": 16, "training.batch_size": 8, "training.epochs": 2, "optimizer.lr": 0.01, "model.widths": (4, 8),
    "training.precision": "fp32",
}  # fmt: skip
BASE = Experiment().override(SMALL)
CPU = QueueOptions(device="cpu")
ARMS: dict[str, dict[str, Any]] = {"plain": {}, "mixup": {"augment.mixup.alpha": 0.4}}


def ablation(**changes: Any) -> Ablation:
    given: dict[str, Any] = {
        "name": "suite",
        "base": BASE,
        "reference": "plain",
        "arms": ARMS,
        "seeds": range(2),
        "folds": (1, 2),
    }
    return Ablation(**{**given, **changes})


@pytest.fixture(scope="module")
def corpus(tones_corpus: Path) -> Corpus:
    return Corpus.open(tones_corpus)


# -- the declaration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a/b"}, "'a/b' cannot name a suite"),
        ({"arms": {"plain": {}, "x y": {"seed": 3}}}, "'x y' cannot name an arm"),
        ({"arms": {"plain": {}}}, "two arms"),
        ({"reference": "plane"}, "Did you mean 'plain'"),
        ({"arms": {"plain": {}, "b": {"augment.mixupp": "on"}}}, "arm 'b'.*Did you mean 'mixup'"),
        ({"arms": {"plain": {}, "b": {"optimizer.lrr": 1.0}}}, "arm 'b'.*Did you mean 'optimizer.lr'"),
        ({"arms": {"plain": {}, "b": {"optimizer.lr": -1.0}}}, "arm 'b'.*greater than 0"),
        ({"arms": {"plain": {}, "b": {"model": "logistic_regression"}}}, "arm 'b'.*takes embedding"),
        ({"arms": {"plain": {}, "b": {"training.epochs": 2}}}, "same experiment as the reference"),
        ({"metric": "val/macro_f2"}, "macro_f1"),
        ({"metric": ()}, r"metric=\(\): expected a metric such as 'val/macro_f1'"),
        ({"metric": 3}, "metric=3: expected a name"),
        ({"metric": (3,)}, "3 is none"),
        ({"metric": "test/macro_f1"}, "validation data"),
        ({"metric": "val/loss", "select": "best"}, "make them equal"),
        ({"select": "first"}, "Allowed: best, last"),
        ({"unit": "steps"}, "needs budget"),
        ({"budget": 0}, "1 or more"),
        ({"seeds": (1, 1)}, "distinct"),
        ({"seeds": ()}, "distinct"),
        ({"seeds": 3}, "distinct numbers from 0 on, for example range"),
        ({"folds": "some"}, "folds='some': expected distinct numbers"),
        ({"folds": (10**30,)}, "expected distinct numbers"),
        ({"arms": {"plain": {}, "b": None}}, "arm 'b': expected a dictionary of dotted keys"),
        ({"arms": ["plain", "b"]}, "arms must be a dictionary"),
        ({"margin": "x"}, "margin='x'"),
        ({"differs": "budgets"}, "Did you mean 'budget'"),
        ({"differs": ("budgets",)}, "Did you mean 'budget'"),
        (
            {"base": BASE.override({"data.split.kind": "official"}), "folds": (1, 2)},
            "has no folds \\(1, 2\\).*k_fold, leave_one_group_out",
        ),
        ({"base": BASE.override({"data.split.kind": "grouped"}), "folds": "all"}, "range"),
    ],
    ids=str,
)
def test_a_declaration_that_does_not_hold(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"(?s){said}"):
        ablation(**changes)


def test_a_declaration_does_not_change_after_it_is_made() -> None:
    arms = {"plain": {}, "b": {"optimizer.lr": 0.1}}
    made = ablation(arms=arms)
    arms["b"]["optimizer.lr"] = 0.2
    assert made.arm("b").optimizer.lr == 0.1
    with pytest.raises(TypeError):
        made.arms["c"] = {}  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "x"  # type: ignore[misc]
    assert stored.restore(
        stored.SuiteState("suite", made.identity(), "tones", "d", list(made.seeds), [1, 2])
    ).identity() == made.identity()  # fmt: skip


def test_the_grid_gives_every_arm_a_run_before_any_a_second(corpus: Corpus) -> None:
    plan = check_plan(ablation(folds="all"), corpus)
    places = [(p.seed, p.fold, p.arm) for p in plan.cells]
    assert places == [(s, f, a) for s in range(2) for f in range(1, 6) for a in ARMS]
    assert all(p.experiment.seed == p.seed and p.experiment.data.split.test_fold == p.fold for p in plan.cells)  # type: ignore[attr-defined]
    assert plan.test_to_train == pytest.approx(1 / 3)  # one fold validates, three train


# -- the contract before the first run --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "arm", "hidden"),
    [
        ({}, {"optimizer.kind": "sgd"}, ["optimizer.lr", "optimizer.weight_decay"]),
        ({}, {"optimizer": {"kind": "sgd", "lr": 0.01}}, ["optimizer.weight_decay"]),
        ({"loss.class_weights": "inverse"}, {"loss.kind": "focal"}, ["loss.class_weights"]),
        ({}, {"optimizer.kind": "sgd", "optimizer.lr": 0.01, "optimizer.weight_decay": 0.01}, []),
        ({}, {"augment.mixup": "on"}, []),
        ({}, {"augment.mixup.alpha": 0.4}, []),
        ({"augment.mixup.alpha": 0.4}, {"augment.mixup": "none"}, []),
        ({"augment.mixup.alpha": 0.4}, {"augment.mixup": {"p": 0.5}}, ["augment.mixup.alpha"]),
        ({}, {"augment": {"mixup": {}, "specaugment": {}}}, []),
        ({"augment.mixup": "on"}, {"augment": {"specaugment": {}}}, []),
        ({}, {"schedule.kind": "constant"}, []),
        ({"schedule.warmup_epochs": 1.0}, {"schedule.kind": "constant"}, ["schedule.warmup_epochs"]),
        ({}, {"model.kind": "cnn4"}, ["model.dropout", "model.widths"]),
        ({}, {"model": Cnn4()}, []),
    ],
    ids=str,
)
def test_a_change_of_kind_hides_no_second_difference(
    base: dict[str, Any], arm: dict[str, Any], hidden: list[str]
) -> None:
    made = ablation(base=BASE.override(base), arms={"plain": {}, "b": arm})
    found = undeclared(made.arm("b"), made.arm("plain"), contract.declared_keys(arm))
    assert sorted(found) == hidden
    if hidden:
        with pytest.raises(UserError, match=f"arm 'b'.*differs in more: {hidden[0]} is"):
            contract.check_declaration(made)
    else:
        contract.check_declaration(made)


def test_what_is_present_is_what_the_value_holds() -> None:
    with_mixup = present(BASE.override({"augment.mixup.alpha": 0.4}))
    assert with_mixup["augment.mixup"] == "on"
    assert with_mixup["augment.mixup.alpha"] == 0.4
    assert not any(key.startswith("augment") for key in present(BASE))
    assert {k: v for k, v in BASE.flatten().items() if k in present(BASE) and v != "none"}.keys() <= present(
        BASE
    ).keys()


@pytest.mark.parametrize("key", ["data.corpus", "data.split.test_fold", "data.split", "training.metric"])
def test_arms_share_data_split_and_the_choice_of_the_epoch(key: str, corpus: Corpus) -> None:
    value: Any = {"data.corpus": "x", "data.split.test_fold": 2, "data.split": {"kind": "grouped"}}.get(key, "val/loss")
    with pytest.raises(UserError, match=f"overrides {key}"):
        check_plan(ablation(arms={"plain": {}, "b": {key: value}}), corpus)


@pytest.mark.parametrize(
    "arm", [{"training.epochs": 3}, {"training.batch_size": 4}, {"sampling.kind": "repeat_factor", "sampling.threshold": 0.9}, {"training.early_stopping": 3}],
    ids=str,
)  # fmt: skip
def test_unequal_budgets_are_refused_unless_declared(arm: dict[str, Any], corpus: Corpus) -> None:
    made = ablation(arms={"plain": {}, "b": arm})
    with pytest.raises(
        UserError, match=r"arm 'b', seed 0, fold 1: unequal budgets: \d+ steps .*the reference 'plain': 6 steps"
    ):
        check_plan(made, corpus)
    plan = check_plan(dataclasses.replace(made, differs=("budget",)), corpus)
    assert ("declared to differ", "budget") in plan.terms


def test_a_budget_in_steps_makes_batch_sizes_comparable(corpus: Corpus) -> None:
    made = ablation(arms={"plain": {}, "b": {"training.batch_size": 3}}, budget=60, unit="steps")
    plan = check_plan(made, corpus)
    assert {(p.arm, p.steps, p.experiment.training.epochs) for p in plan.cells} == {("plain", 60, 20), ("b", 60, 10)}
    with pytest.raises(UserError, match="unequal budgets"):  # 1 epoch of 3 steps and 1 epoch of 6
        check_plan(dataclasses.replace(made, budget=3), corpus)


def test_unequal_precision_is_refused(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="computes in bf16, the reference 'plain' in fp32"):
        check_plan(ablation(arms={"plain": {}, "b": {"training.precision": "bf16"}}), corpus)


def test_a_group_on_two_sides_is_refused(corpus: Corpus) -> None:
    leaking = Corpus(corpus.directory, corpus.index)
    torn = next(i for i in range(1, 30) if leaking.folds[i] != leaking.folds[0])
    leaking.groups = tuple("one recording" if i in (0, torn) else g for i, g in enumerate(corpus.groups))
    with pytest.raises(UserError, match=r"ablation 'suite', fold \d: .*'one recording' \(\w+ and \w+\)"):
        check_plan(ablation(folds="all"), leaking)


@pytest.mark.parametrize("sampling", ["uniform", "balanced", "repeat_factor"])
@pytest.mark.parametrize("size", [1, 5, 7, 24, 25, 100])
def test_steps_are_counted_as_batches_are_dealt(sampling: str, size: int, corpus: Corpus) -> None:
    from audio_cls.training.batches import Batches

    experiment = BASE.override({"sampling": sampling, "training.batch_size": size, "training.epochs": 3})
    split = experiment.data.split.assign(corpus)
    batches = Batches.__new__(Batches)
    batches.experiment, batches.corpus, batches.split, batches.device = experiment, corpus, split, None  # type: ignore[assignment]
    batches._order = experiment.sampling.build(corpus.targets[split.train])
    batches.from_waveforms = False
    seen = 0
    batches.features = lambda clips, where: clips  # type: ignore[method-assign, assignment, return-value]
    import torch

    batches.targets = torch.from_numpy(corpus.targets)
    batches.device = torch.device("cpu")
    for epoch in range(3):
        seen += len(list(batches.train(epoch)))
    assert optimiser_steps(experiment, corpus.targets[split.train]) == seen


@pytest.mark.parametrize("steps", [1, 20, 100, 450])
def test_a_budget_in_steps_gives_the_nearest_number_of_epochs(steps: int) -> None:
    """Also where epochs differ in length: those of repeat-factor sampling do."""
    targets = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), [60, 20, 8, 2])]
    experiment = BASE.override({"sampling.kind": "repeat_factor"})
    epochs = contract._epochs_for(experiment, targets, steps)

    def off(n: int) -> int:
        return abs(optimiser_steps(experiment.override({"training.epochs": n}), targets) - steps)

    assert all(off(epochs) <= off(n) for n in (epochs - 1, epochs + 1) if n >= 1)


# -- a suite that has been run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace where all but the last two cells of the suite have been run, in this process."""
    workspace = Workspace(tmp_path_factory.mktemp("suite"))
    shutil.copytree(tones_corpus, workspace.corpora / "tones")
    file = workspace.root / "suite.py"
    file.write_text("# the suite of these tests\n")
    suite = open_suite(ablation(), Tracker(workspace), CPU, file)
    _, parent, arms = run_suite_here(suite, first=6)
    for run in (*arms.values(), parent):
        run.finish("INTERRUPTED")
    return workspace


def study_of(workspace: Workspace) -> Any:
    return load_study("ablation:suite", open_storage(workspace.optuna_db))


@pytest.fixture
def workspace(ran: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(ran.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_half_a_suite_is_reported(ran: Workspace) -> None:
    result = results(reopen_suite("suite", Tracker(ran)))[0]
    assert result.state == "under way: 6 of 8 runs"
    assert [(a.name, a.done, a.planned) for a in result.arms] == [("plain", 3, 4), ("mixup", 3, 4)]
    comparison = result.arms[1].comparison
    assert comparison is not None
    assert (comparison.n, comparison.pairs.cells) == (3, ((0, 1), (0, 2), (1, 1)))
    plain, mixup = result.arms[0].values, result.arms[1].values
    assert comparison.pairs.differences == pytest.approx([mixup[c] - plain[c] for c in comparison.pairs.cells])
    runs = Tracker(ran).runs(filter="tags.kind = 'cell'")
    by_name = {r.name: r for r in runs}
    assert plain[0, 2] == by_name["plain seed 0 fold 2"].metrics["last/macro_f1"]


def test_a_suite_under_way_has_no_verdicts_and_a_finished_one_counts_its_looks(workspace: Workspace) -> None:
    """The verdict comes with the last run, is looked at once however often it is reported, and an extension pays for it."""
    tracker, file = Tracker(workspace), workspace.root / "suite.py"

    def state(seeds: int) -> tuple[str, int, float]:
        found = results(reopen_suite("suite", tracker))[0]
        mixup = found.arms[1].verdict
        assert mixup is not None
        if mixup.word == "under way":
            assert (mixup.p, found.arms[1].wider) == (pytest.approx(math.nan, nan_ok=True), None)
            assert f"of {2 * seeds} pairs" in mixup.text
        comparison = found.arms[1].comparison
        assert comparison is not None
        assert comparison.clipwise or comparison.sources is not None  # the stored predictions were used, or gave way
        return mixup.word, len(found.looks.looks), found.looks.alpha

    assert state(2)[:2] == ("under way", 0)
    for seeds, looks in ((2, 1), (3, 2)):
        _, parent, arms = run_suite_here(open_suite(ablation(seeds=range(seeds)), tracker, CPU, file))
        for run in (*arms.values(), parent):
            run.finish("COMPLETE")
        first, second = state(seeds), state(seeds)
        assert first == second
        assert first[0] != "under way"
        assert first[1] == looks
        assert first[2] == pytest.approx(0.04) if looks == 1 else first[2] < 0.04
        if looks == 1:
            open_suite(ablation(seeds=range(3)), tracker, CPU, file)  # opened, not begun: still the first look
            assert state(seeds)[1] == 1


def test_mlflow_groups_cells_below_arms_below_the_suite(ran: Workspace) -> None:
    runs = Tracker(ran).runs()
    by_id = {r.run_id: r for r in runs}
    cells = [r for r in runs if r.tags["kind"] == "cell"]
    assert len(cells) == 6
    keys = set(cells[0].params)
    for cell in cells:
        arm = by_id[str(cell.parent)]
        suite = by_id[str(arm.parent)]
        assert (arm.tags["kind"], suite.tags["kind"]) == ("arm", "suite")
        assert cell.params["ablation.arm"] == arm.params["ablation.arm"] == cell.name.split()[0]
        assert set(cell.params) == set(arm.params) == set(suite.params) == keys
    pairs = {(c.params["ablation.arm"], c.tags["seed"], c.tags["fold"]): c.tags for c in cells}
    assert pairs["plain", "0", "1"]["init.digest"] == pairs["mixup", "0", "1"]["init.digest"]
    assert pairs["plain", "0", "1"]["order.digest"] == pairs["mixup", "0", "1"]["order.digest"]
    assert pairs["plain", "0", "1"]["init.digest"] != pairs["plain", "1", "1"]["init.digest"]
    assert pairs["plain", "0", "1"]["order.digest"] != pairs["plain", "1", "1"]["order.digest"]
    assert pairs["plain", "0", "1"]["split.digest"] != pairs["plain", "0", "2"]["split.digest"]


Change = Callable[[record.Recorded], record.Recorded]


def _fact(**facts: str) -> Change:
    new = {k.replace("__", "."): v for k, v in facts.items()}
    return lambda r: dataclasses.replace(r, facts={**r.facts, **new}, tracked={**r.tracked, **new})


def _experiment(key: str, value: Any) -> Change:
    return lambda r: dataclasses.replace(r, experiment=Experiment.parse(r.experiment).override({key: value}).to_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_experiment("optimizer.lr", 0.02), "optimizer.lr is 0.02, declared is 0.01: a difference that no arm declares"),
        (_experiment("training.epochs", 3), "training.epochs is 3, declared is 2"),
        (_experiment("features.n_mels", 20), "features.n_mels is 20"),
        (_experiment("seed", 7), "seed is 7"),
        (_fact(data__digest="other"), "data is other"),
        (_fact(split__digest="other"), "split is other"),
        (_fact(init__digest="other"), "initial weights is other, its partner in 'plain' has"),
        (_fact(order__digest="other"), "clip order of the first epoch is other"),
        (_fact(metric__version="0"), "metric code is 0"),
        (_fact(precision="bf16"), "precision is bf16"),
        (_fact(device__kind="cuda"), "kind of device is cuda"),
        (lambda r: dataclasses.replace(r, params={**r.params, "optimizer.lr": "0.5"}), "the parameter optimizer.lr in MLflow is 0.5"),
        (lambda r: dataclasses.replace(r, tracked={**r.tracked, "data.digest": "other"}), "the tag data.digest in MLflow is other"),
        (lambda r: dataclasses.replace(r, experiment={}), "declared"),
    ],
)  # fmt: skip
def test_a_record_that_breaks_the_contract_is_refused(ran: Workspace, change: Change, said: str) -> None:
    suite = reopen_suite("suite", Tracker(ran))
    records = record.read_records(suite.ablation, suite.plan, suite.study, suite.storage, suite.tracker)
    check_records(suite.ablation, suite.plan, records)
    place = next(i for i, r in enumerate(records) if r.arm == "mixup")
    records[place] = change(records[place])
    with pytest.raises(UserError, match=r"arm 'mixup', seed 0, fold 1") as refused:
        check_records(suite.ablation, suite.plan, records)
    assert said in str(refused.value)


def test_a_run_that_was_changed_on_disk_is_refused_when_reporting(workspace: Workspace) -> None:
    trial = next(c for c in read_cells(study_of(workspace)) if c.params == {"arm": "mixup", "seed": 0, "fold": 1})
    experiment = json.loads(trial.record.experiment)
    experiment["loss"]["label_smoothing"] = 0.1
    with contextlib.closing(sqlite3.connect(workspace.optuna_db)) as database, database:
        database.execute(
            "update trial_user_attributes set value_json = ? where key = 'experiment' and trial_id = "
            "(select trial_id from trials where number = ? and study_id = (select study_id from studies))",
            (json.dumps(json.dumps(experiment)), trial.number),
        )
    with pytest.raises(UserError, match=r"not comparable: arm 'mixup', seed 0, fold 1 .*loss.label_smoothing is 0.1"):
        results(reopen_suite("suite", Tracker(workspace)))


def test_a_suite_goes_on_only_as_it_was_declared(workspace: Workspace) -> None:
    file, tracker = workspace.root / "suite.py", Tracker(workspace)
    grown = open_suite(ablation(seeds=range(3)), tracker, CPU, file)
    assert len(grown.plan.cells) == 12
    assert len(open_suite(ablation(seeds=(5,)), tracker, CPU, file).plan.cells) == 12  # 0, 1 and 5
    more = {**ARMS, "both": {"augment.mixup.alpha": 0.4, "augment.specaugment": "on"}}
    assert len(open_suite(ablation(arms=more), tracker, CPU, file).plan.cells) == 12
    for changes, said in (
        ({"base": BASE.override({"optimizer.lr": 0.02})}, r"base.optimizer.lr: 0.01 -> 0.02"),
        ({"arms": {"plain": {}, "mixup": {"augment.mixup.alpha": 0.5}}}, r"arm 'mixup': .*0.4.* -> .*0.5"),
        ({"metric": "val/accuracy"}, r"metric: \['val/macro_f1'\] -> \['val/accuracy'\]"),
        ({"reference": "mixup"}, "reference: 'plain' -> 'mixup'"),
    ):
        with pytest.raises(UserError, match=f"(?s)another declaration.*{said}"):
            open_suite(ablation(**changes), tracker, CPU, file)


def test_other_data_under_the_same_name_is_refused(workspace: Workspace) -> None:
    index = workspace.corpora / "tones" / "index.json"
    assert index.exists()
    study = study_of(workspace)
    study.set_user_attr("suite", {**study.user_attrs["suite"], "data": "0" * 64})
    with pytest.raises(UserError, match="data: tones 0000"):
        open_suite(ablation(), Tracker(workspace), CPU, workspace.root / "suite.py")
    with pytest.raises(UserError, match="not comparable: the corpus"):
        reopen_suite("suite", Tracker(workspace))


def test_after_the_test_split_was_opened_a_suite_is_told_of_it_and_does_not_grow(workspace: Workspace) -> None:
    tracker = Tracker(workspace)
    [run] = [r for r in tracker.runs() if r.name == "mixup seed 1 fold 1"]
    tracker.reopen(run.run_id).tags({"test.openings": "1", "test.first_opened": "2026-01-01"})
    result = results(reopen_suite("suite", tracker))[0]
    assert result.openings == ("arm 'mixup', seed 1, fold 1: opened 1 time(s), first 2026-01-01",)
    with pytest.raises(UserError, match="cannot grow: its test split has been opened"):
        open_suite(ablation(), tracker, CPU, workspace.root / "suite.py")


def test_a_failed_run_counts_against_its_arm(ran: Workspace) -> None:
    suite = reopen_suite("suite", Tracker(ran))
    records = record.read_records(suite.ablation, suite.plan, suite.study, suite.storage)
    records[1] = dataclasses.replace(records[1], state="FAILED", reason="diverged")
    arm = summarise(suite.ablation, suite.plan, records, looks=Looks(finished=True)).arms[1]
    assert arm.failed == (("arm 'mixup', seed 0, fold 1", "diverged"),)
    assert arm.verdict is not None
    assert arm.verdict.word == "cannot tell"
    assert np.isnan(arm.values[0, 1])


def test_collapsed_runs_are_counted_and_means_are_told_with_and_without_them(ran: Workspace) -> None:
    from audio_cls.ablation.page import suite_report
    from audio_cls.ablation.page_data import build_report

    suite = reopen_suite("suite", Tracker(ran))
    whole = results(suite)[0]
    assert [arm.collapsed for arm in whole.arms] == [None, None]
    marks = {
        ("mixup", (0, 1)): {"last": "the loss rose", "best": "x"},
        ("plain", (1, 1)): {"best": "after it all was well"},
    }
    records = [dataclasses.replace(r, collapsed=marks.get((r.arm, r.cell), {})) for r in whole.records]
    constant = dataclasses.replace(whole.scores["plain"][0, 2], scores=np.full((6, 3), 1 / 3))  # of an earlier version
    scores = {**whole.scores, "plain": {**whole.scores["plain"], (0, 2): constant}}
    marked = mark_collapsed(dataclasses.replace(whole, records=tuple(records), scores=scores))
    plain, mixup = marked.arms
    assert plain.collapsed is not None
    assert mixup.collapsed is not None
    assert list(plain.collapsed.why) == [(0, 2)]
    assert mixup.collapsed.text == "1 of 3 runs collapsed"
    others = [value for cell, value in mixup.values.items() if cell != (0, 1)]
    assert mixup.collapsed.without.mean == pytest.approx(np.mean(others))
    assert mixup.mean == whole.arms[1].mean
    assert mixup.verdict is not None
    assert mixup.verdict.text.endswith(
        "but 1 of 3 runs collapsed in mixup and 1 of 3 runs collapsed in plain, which count"
    )
    said = collapse_findings(marked)
    assert said[1].startswith("mixup: 1 of 3 runs collapsed (seed 0, fold 1: the loss rose): mean ")
    assert f"{100 * np.mean(others):.1f} without." in said[1]
    page = suite_report(build_report(marked, suite.tracker, suite.corpus, marked.scores))
    assert "(mixup without 1 collapsed)" in page


def test_figures_that_earlier_versions_did_not_record_come_from_the_predictions(ran: Workspace) -> None:
    suite = reopen_suite("suite", Tracker(ran))
    whole = results(suite)[0]
    judged = dataclasses.replace(suite.ablation, metric=("val/nll",))
    old = [dataclasses.replace(r, last={k: v for k, v in r.last.items() if k != "nll"}) for r in whole.records]
    found = record.with_figures(old, whole.scores, judged)
    done = [
        (mine.figure("val/nll", "last"), its.figure("val/nll", "last"))
        for mine, its in zip(found, whole.records)
        if its.done
    ]
    assert len(done) == 6
    assert all(mine == pytest.approx(its, rel=1e-9) for mine, its in done)


def test_an_unknown_suite_names_the_nearest(ran: Workspace) -> None:
    with pytest.raises(UserError, match="Did you mean 'suite'"):
        reopen_suite("suit", Tracker(ran))


# -- stored predictions -----------------------------------------------------------------------------------------------


def test_scores_survive_the_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    path = tmp_path / "s.csv"
    path.write_text(scores_csv(["a", 'b"', "c,d", "é"], values, ["x", "y", "z"]), encoding="utf-8")
    found = read_scores(path)
    assert (found.clips, found.classes) == (("a", 'b"', "c,d", "é"), ("x", "y", "z"))
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    path.write_text("clip,x,y\na,0.1,0.9\nb,0.2\n")
    with pytest.raises(UserError, match="row 3"):
        read_scores(path)


def test_stored_predictions_give_the_recorded_figures(ran: Workspace) -> None:
    suite = reopen_suite("suite", Tracker(ran))
    for recorded in record.read_records(suite.ablation, suite.plan, suite.study, suite.storage)[:3]:
        for select, figures in (("last", recorded.last), ("best", recorded.metrics)):
            found = read_predictions(suite.tracker, str(recorded.run_id), suite.corpus, select)
            assert found is not None
            overall = found.evaluation.overall
            assert overall["macro_f1"] == pytest.approx(figures["macro_f1"])
            assert overall["auc"] == pytest.approx(figures["auc"], abs=1e-3)


def test_pooled_predictions_hold_each_clip_once(ran: Workspace) -> None:
    from audio_cls.ablation.page import suite_report
    from audio_cls.ablation.page_data import build_report

    suite = reopen_suite("suite", Tracker(ran))
    result = results(suite)[0]
    scores = result.scores
    pooled = pooled_by_seed(scores["plain"], (1, 2), suite.corpus)
    assert list(pooled) == [0]  # fold 2 of seed 1 has not been run
    assert sorted(set(pooled[0].rows.tolist())) == pooled[0].rows.tolist()
    assert set(suite.corpus.folds[pooled[0].rows]) == {2, 3}  # the folds that validate where 1 and 2 test
    page = suite_report(build_report(result, suite.tracker, suite.corpus, scores))
    assert "under way: 6 of 8 runs" in page
    assert "mixup" in page


# -- confirmation ------------------------------------------------------------------------------------------------------


def _ended(cell: Any, word: str, last: float, best: float | None = None) -> CellState:
    """The state of a cell whose run ended with these figures."""
    found = last if best is None else best
    record = TrialRecord(metrics={"macro_f1": found}, last={} if math.isnan(last) else {"macro_f1": last})
    return CellState(cell.params, cell.key, 0, word, found, 1, record)


def _candidates() -> list[Candidate]:
    return [
        Candidate(t, v, BASE.override({"optimizer.lr": lr}), {}, v - 0.05)
        for t, v, lr in ((7, 0.9, 0.1), (3, 0.8, 0.2))
    ]


def test_configurations_are_ranked_again_by_their_fresh_runs(corpus: Corpus) -> None:
    chosen = _candidates()
    cells = confirmation_cells("s", chosen, corpus, 2, "all")
    assert len(cells) == 2 * 5 * 2
    assert len({cell.key for cell in cells}) == len({cell.id for cell in cells}) == len(cells)
    worth = {"trial 7": 0.6, "trial 3": 0.7}
    states = [_ended(c, "COMPLETE", worth[str(c.params["arm"])] + 0.01 * (int(c.params["seed"]) % 7)) for c in cells]
    ranked = rank(chosen, states, corpus, "val/macro_f1")
    assert [(c.candidate.trial, c.rank) for c in ranked] == [(3, 1), (7, 2)]
    assert ranked[1].mean.mean < 0.9
    half = [s if s.params["arm"] == "trial 7" else _ended(s, "WAITING", 0.0) for s in states]
    assert [c.candidate.trial for c in rank(chosen, half, corpus, "val/macro_f1")] == [7, 3]
    cells = confirmation_cells("s", chosen[:1], corpus, 3, None)
    [alone] = rank(
        chosen[:1], [_ended(c, "COMPLETE", 0.6 + 0.1 * i) for i, c in enumerate(cells)], corpus, "val/macro_f1"
    )
    assert (alone.rank, alone.mean.n, alone.comparison) == (1, 3, None)
    assert alone.mean.mean == pytest.approx(0.7)


def test_a_confirmation_is_judged_by_the_last_epoch(corpus: Corpus) -> None:
    chosen = _candidates()
    cells = confirmation_cells("s", chosen, corpus, 1, "all")
    best = {"trial 7": 0.95, "trial 3": 0.9}  # the search's winner leads by its best epoch alone
    last = {"trial 7": 0.6, "trial 3": 0.7}
    arms = [str(c.params["arm"]) for c in cells]
    states = [_ended(c, "COMPLETE", last[a], best[a]) for c, a in zip(cells, arms, strict=True)]
    assert judged_by(states, "val/macro_f1") == "last"
    ranked = rank(chosen, states, corpus, "val/macro_f1")
    assert [(c.candidate.trial, round(c.mean.mean, 6)) for c in ranked] == [(3, 0.7), (7, 0.6)]
    columns, rows = ranking_table(chosen, ranked, "val/macro_f1", "last")
    row = dict(zip(columns, rows[0], strict=True))
    assert (row["found"], row["at last"], row["anew"], row["change"]) == ("80.0", "75.0", "70.0", "-5.0")
    said = ranking_lines(chosen[0], ranked, "val/macro_f1", "last", math.nan)
    assert said[0].startswith("figures: anew of the last epoch, which nobody chose; found of the best epoch")
    assert "found at 85.0 (best epoch; 80.0 at the last), confirmed at 65.0" in said[-1]
    assert "(-15.0, mean of 2 configurations)" in said[-1]

    old = [_ended(c, "COMPLETE", math.nan, best[a]) for c, a in zip(cells, arms, strict=True)]  # no last epoch recorded
    assert judged_by(old, "val/macro_f1") == "best"
    ranked = rank(chosen, old, corpus, "val/macro_f1", "best")
    assert [c.candidate.trial for c in ranked] == [7, 3]
    assert "of the best epoch" in ranking_lines(chosen[0], ranked, "val/macro_f1", "best", math.nan)[0]


def test_a_confirmation_compares_clip_by_clip(corpus: Corpus) -> None:
    chosen, rng = _candidates(), np.random.default_rng(0)
    states, predictions = [], {f"trial {c.trial}": {} for c in chosen}  # type: ignore[var-annotated]
    for cell in confirmation_cells("s", chosen, corpus, 2, "all"):
        arm, place = str(cell.params["arm"]), (int(cell.params["seed"]), int(cell.params["fold"]))
        rows = cell.experiment.data.split.assign(corpus).validation  # type: ignore[attr-defined]
        found = corpus_predictions(corpus, rows, rng.dirichlet(np.ones(len(corpus.classes)), len(rows)))
        predictions[arm][place] = found
        states.append(_ended(cell, "COMPLETE", found.evaluation.overall["macro_f1"]))
    without = rank(chosen, states, corpus, "val/macro_f1")
    with_clips = rank(chosen, states, corpus, "val/macro_f1", "last", predictions)
    [before], [after] = ([c.comparison for c in ranked if c.comparison] for ranked in (without, with_clips))
    assert (before.sources, before.why_wide) == (None, "without the clips' predictions")
    assert after.sources is not None
    assert after.mean == before.mean


def test_an_older_confirmation_says_what_its_figures_are() -> None:
    assert "by the best epoch of each run" in former_note({})
    assert "which ranked it by the best epoch" in former_note({"select": ["best", "last"]})
    assert former_note({"select": ["last"]}) == ""


@pytest.mark.parametrize("words", [("ablate", "run"), ("study", "confirm"), ("study", "run"), ("train",)], ids=" ".join)
def test_what_trains_takes_the_same_options(words: tuple[str, ...]) -> None:
    from audio_cls.cli.app import cli

    found: Any = cli
    for word in words:
        found = found.commands[word]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {"--grace", "--tracking", "--device", "--storage", "--workers"} <= options
    assert "--set" in options or words == ("study", "confirm")


def test_the_options_of_a_suite_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--set` changes the base before the suite is opened."""
    from audio_cls.ablation import suite

    file = Path(__file__).parents[2] / "experiments" / "demo_imbalance.py"
    seen: list[Any] = []

    def opening(ablation: Ablation, tracker: Tracker, options: QueueOptions, *_: Any) -> Any:
        seen.extend([ablation.base, options])
        raise UserError("enough")

    monkeypatch.setattr(suite, "open_suite", opening)
    words = ("--set", "optimizer.lr=0.125", "--workers", "3", "--grace", "5", "--storage", "sqlite:///x.db")
    call(capsys, tmp_path, "ablate", "run", str(file), *words, code=2)
    base, options = seen
    assert base.optimizer.lr == 0.125
    assert (options.workers, options.grace_seconds, options.storage) == (3, 5.0, "sqlite:///x.db")


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "experiments").glob("*.py")), ids=lambda f: f.stem)
def test_the_experiments_of_this_repository_keep_the_contract(file: Path) -> None:
    from audio_cls.ablation.declaration import load_ablation

    declared = load_ablation(file)
    contract.check_declaration(declared)
    assert f"audio-cls ablate run experiments/{file.name}" in file.read_text(encoding="utf-8")
