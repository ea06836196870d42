"""A suite at hand: its declaration, its cells, its records; opened to be run, or by its name to be reported on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio_cls.ablation.answers import amend, read_answers
from audio_cls.ablation.contract import Plan, check_plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.filling import convert_cells
from audio_cls.ablation.looks import Looks, record_look, seen_by
from audio_cls.ablation.losses import check_losses
from audio_cls.ablation.record import Recorded, openings, read_records, with_figures
from audio_cls.ablation.recorded_contract import check_records
from audio_cls.ablation.results import SuiteResult, compare_arms, summarise
from audio_cls.ablation.settling import settle
from audio_cls.ablation.stored import (
    SuiteState,
    existing_storage,
    find_state,
    is_converted,
    join_suite,
    read_state,
    restore,
    store_state,
    suite_work,
)
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import check_metric_fits
from audio_cls.metrics.comparison import Comparison
from audio_cls.queue.cells import Cell
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.storage import StudyStorage, open_storage
from audio_cls.runs.folds import fold_label
from audio_cls.runs.own_parts import recorded
from audio_cls.runs.preparation import check_fits, mlflow_experiment, open_corpus
from audio_cls.runs.resolve import RULES, Resolved
from audio_cls.runs.single import run_key
from audio_cls.tracking import Tracker
from audio_cls.tracking.suites import arm_colours

__all__ = ["Suite", "open_suite", "reopen_suite", "results", "suite_cells", "tuned"]


@dataclass(frozen=True)
class Suite:
    """A suite at hand: its declaration (with every seed ever asked for), its cells, and where it is recorded.

    storage: of its Optuna study; None if the database does not exist yet. resolved: what the base left to the data, of a suite
    that is to be run. file: that declares it; assignments: changes of its base on the command line; parts: further files that the workers load.
    """

    ablation: Ablation
    plan: Plan
    corpus: Corpus
    state: SuiteState
    tracker: Tracker
    storage: StudyStorage | None
    resolved: Resolved | None = None
    file: Path | None = None
    assignments: tuple[str, ...] = ()
    parts: tuple[Path, ...] = ()

    @property
    def workspace(self) -> Workspace:
        return self.tracker.workspace

    @property
    def experiment_name(self) -> str:
        return mlflow_experiment(self.corpus)

    @property
    def files(self) -> list[Path]:
        """The files that its workers load."""
        return [*self.parts, *([self.file] if self.file is not None else [])]

    @property
    def study(self) -> str:
        """The name of its Optuna study."""
        return suite_work(self.state).name


def open_suite(
    ablation: Ablation,
    tracker: Tracker,
    options: QueueOptions,
    file: Path | None = None,
    assignments: tuple[str, ...] = (),
) -> Suite:
    """Open the suite of a declaration, checked before anything is trained; nothing is written.

    Raises:
        UserError: for a declaration, plan or record that breaks the contract, naming the difference.
    """
    from audio_cls.core.device import choose_device

    workspace = tracker.workspace
    corpus = open_corpus(workspace, ablation.base.data)
    storage = existing_storage(workspace, options.storage)
    old = find_state(workspace, storage, ablation.name)
    ablation, resolved = settle(ablation, corpus, old.data_rules if old else RULES)
    state = join_suite(ablation, old, corpus, file)
    grown: Any = {"seeds": state.seeds, "folds": state.folds, "arms": state.identity["arms"]}
    ablation = replace(ablation, **grown)
    check_losses(tuned(ablation, state), old)
    plan = check_plan(tuned(ablation, state), corpus, choose_device(options.device))  # again after a search
    if state.run_id is None:
        for planned in {p.arm: p for p in reversed(plan.cells)}.values():
            check_fits(planned.experiment, corpus, workspace)
        for metric in ablation.metrics:
            check_metric_fits(metric, corpus, f"ablation {ablation.name!r}: metric")
    suite = _converted(
        Suite(ablation, plan, corpus, state, tracker, storage, resolved, file, assignments), options.storage
    )
    records = read_records(ablation, plan, suite.study, suite.storage, tracker if state.run_id else None)
    check_records(ablation, plan, records)
    opened = openings(records)
    if opened and not all(r.done for r in records):
        raise UserError(
            f"the suite {ablation.name!r} cannot grow: its test split has been opened ({opened[0]}), and what is run from now on "
            "may be chosen by what it showed. Start another suite under another name"
        )
    return suite


def reopen_suite(name: str, tracker: Tracker, storage: str | Path | None = None) -> Suite:
    """Open a suite by its name, as it was declared, to report on.

    Raises:
        UserError: for a suite that is not there, or whose corpus has gone or changed.
    """
    workspace = tracker.workspace
    where = existing_storage(workspace, storage)
    state = read_state(workspace, where, name)
    files = [Path(state.file)] if state.file else []
    ablation, full = recorded(lambda: _restored(state), workspace, state.sources, files, f"suite {name}")
    corpus = open_corpus(workspace, ablation.base.data.model_copy(update={"corpus": state.corpus}))
    if corpus.digest != state.data:
        raise UserError(
            f"not comparable: the corpus {corpus.name!r} has digest {corpus.digest[:16]}, the suite {name!r} was run on {state.data[:16]}"
        )
    ablation, full = (settle(made, corpus, state.data_rules)[0] for made in (ablation, full))
    return _converted(Suite(ablation, check_plan(full, corpus), corpus, state, tracker, where), storage)


def _converted(suite: Suite, address: str | Path | None) -> Suite:
    """Bring a suite that an earlier version kept on disk into the queue; any other is returned as it is.

    Raises:
        UserError: where the workspace is read-only.
    """
    if suite.state.run_id is None or is_converted(suite.state, suite.storage):
        return suite
    suite.workspace.check_writable(f"audio-cls ablate report {suite.state.name}")
    storage = suite.storage or open_storage(address or suite.workspace.optuna_db)
    store_state(suite.state, storage, lambda: None)
    convert_cells(suite_work(suite.state), suite_cells(suite), suite.tracker, storage)
    return replace(suite, storage=storage)


def _restored(state: SuiteState) -> tuple[Ablation, Ablation]:
    """Return the declaration as it was stored, and with what the arms' searches found; each arm parses."""
    ablation = restore(state)
    full = tuned(ablation, state)
    for arm in full.arms:
        full.arm(arm)
    return ablation, full


def tuned(ablation: Ablation, state: SuiteState) -> Ablation:
    """Return the declaration with what each arm's own search has found, which joins what the arm declares."""
    if not state.tuned:
        return ablation
    arms = {arm: {**changes, **state.tuned.get(arm, {})} for arm, changes in ablation.arms.items()}
    return replace(ablation, arms=arms)


def suite_cells(suite: Suite) -> list[Cell]:
    """Return the cells of a suite, each below its arm's run."""
    ablation, plan, data = suite.ablation, suite.plan, suite.corpus.digest
    colours = arm_colours(list(ablation.arms))
    return [
        Cell(
            params={"arm": p.arm, "seed": p.seed, "fold": p.fold},
            experiment=p.experiment,
            key=run_key(p.experiment.digest(), data),
            name=f"{p.arm} seed {p.seed}"
            + (f" {fold_label(p.fold, plan.fold_names[p.fold])}" if ablation.fold_key else ""),
            tags={
                "ablation.suite": ablation.name,
                "ablation.arm": p.arm,
                "seed": str(p.seed),
                "fold": str(p.fold),
                **colours[p.arm],
            },
            run_params={"ablation.suite": ablation.name, "ablation.arm": p.arm},
            parent=suite.state.arms.get(p.arm),
            former=f"{ablation.name}.{p.arm}.seed{p.seed}.fold{p.fold}.{data[:8]}",
        )
        for p in plan.cells
    ]


def results(suite: Suite) -> list[SuiteResult]:
    """Sum up the suite by each of its metrics, the first one first, once its records have passed the contract.

    Once every planned run is finished, its verdicts are given, and that is recorded as a look (see `looks`) before they are returned.
    """
    records = read_records(suite.ablation, suite.plan, suite.study, suite.storage, suite.tracker)
    check_records(suite.ablation, suite.plan, records)
    answers = read_answers(suite.ablation, suite.plan, records, suite.corpus, suite.tracker)
    ablation, plan = suite.ablation, suite.plan
    recorded, records = records, with_figures(records, answers.scores, ablation)
    compared = {m: compare_arms(ablation, plan, records, m, answers.scores) for m in ablation.metrics}
    looks = _look(suite, recorded, compared[ablation.metrics[0]])
    summed = [summarise(ablation, plan, records, m, compared=c, looks=looks) for m, c in compared.items()]
    return [amend(result, answers, suite.corpus) for result in summed]


def _look(suite: Suite, records: Sequence[Recorded], compared: Mapping[str, Comparison]) -> Looks:
    """Record that the verdicts of a suite are looked at; nothing is while runs are under way."""
    if suite.storage is None or not all(r.done for r in records):
        return Looks(finished=False)
    return record_look(seen_by(records, compared), suite.study, suite.storage, write=not suite.workspace.read_only)
