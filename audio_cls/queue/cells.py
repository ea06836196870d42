"""Configurations that are given, not drawn: the cells of an ablation, of a cross-validation, of a confirmation.

Each is a trial of one Optuna study, with its arm, seed and fold as parameters, so that `optuna trials` and the dashboard show them.
Everything that a worker must know of a cell is in its trial, so any number of machines can work on one list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState, create_trial

from audio_cls.core.config import Component
from audio_cls.core.loading import load_files
from audio_cls.core.workspace import Workspace
from audio_cls.queue.lease import worker_identity
from audio_cls.queue.options import USUAL, QueueOptions
from audio_cls.queue.process import Session, Worked, WorkTarget
from audio_cls.queue.queue import Queue, Tally
from audio_cls.queue.record import REFUSED, TrialRecord, attributes, experiment_text, is_finished, record_of, row_state
from audio_cls.queue.seam import Objective, TrialContext
from audio_cls.queue.status import StudyStatus, study_status
from audio_cls.queue.storage import TOTAL, StudyStorage, load_study, open_storage, open_study, study_names
from audio_cls.queue.supervisor import run_workers
from audio_cls.queue.tracked import run_tracked
from audio_cls.queue.work import SEARCH, Direction, Kind
from audio_cls.runs.outcome import Outcome
from audio_cls.training.rules import FORMER, RULES

__all__ = ["Cell", "CellState", "Cells", "Enqueued", "begun_rules", "cell_objective", "enqueue", "finished_cells", "open_cells", "read_cells", "run_cells"]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One configuration of a list.

    Attributes:
        params: what it is in its list, such as arm, seed and fold; texts or whole numbers, the same names in every cell.
        experiment: what it trains.
        key: what it is everywhere: equal keys are the same experiment on the same data.
        name, tags, run_params, parent: of its run in MLflow; `run_params` join the experiment's parameters.
        run_id: of a run in MLflow that it continues with.
        former: the folder in `checkpoints/runs` where an earlier version started it; its checkpoint is resumed.
    """

    params: Mapping[str, str | int]
    experiment: Component
    key: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    run_params: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    run_id: str | None = None
    former: str = ""

    @property
    def id(self) -> str:
        return _id(self.params)

    def attributes(self, config: int, rules: int) -> dict[str, Any]:
        """Return the attributes of its first attempt, in a list that is trained by a version of the training rules."""
        kept = ("key", "name", "tags", "run_params", "parent", "former")
        cell = {name: getattr(self, name) for name in kept} | {"params": dict(self.params), "rules": rules}
        own = attributes(config=config, ready=True, experiment=self.experiment.to_json(None), cell=cell)
        return own | (attributes(mlflow_run_id=self.run_id) if self.run_id else {})


@dataclass(frozen=True)
class Cells:
    """The work of a list of cells. `facts` join its identity: what must not change once it is started."""

    name: str
    kind: Kind
    metric: str
    direction: Direction
    facts: Mapping[str, Any] = field(default_factory=dict)
    parse: Callable[[str], Component] | None = None  # of stored experiments; None for `Experiment.from_json`

    @property
    def drawn(self) -> bool:
        return False

    def identity(self) -> dict[str, Any]:
        """Return what makes it this work, as plain JSON."""
        own = {"format": 1, "kind": self.kind, "metric": self.metric, "direction": self.direction}
        return {**self.facts, **own}

    def changes_since(self, stored: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> list[str]:
        """Describe how the identity differs from a stored one: a line for each difference."""
        now = {**self.identity(), **(extra or {})}
        return [f"{k}: {stored[k]!r} -> {now[k]!r}" for k in sorted(now.keys() & stored.keys()) if stored[k] != now[k]]

    def make_sampler(self) -> optuna.samplers.BaseSampler:
        """Return a sampler that is never asked."""
        return optuna.samplers.RandomSampler(seed=0)

    def make_pruner(self) -> optuna.pruners.BasePruner:
        """Return a pruner that prunes nothing."""
        return optuna.pruners.NopPruner()

    def draw(self, trial: optuna.Trial) -> tuple[dict[str, Any], Component]:
        """Return the experiment that was enqueued.

        Raises:
            ConfigError: for one that this process does not understand, for want of an own part's file, say.
        """
        record = TrialRecord.of(trial.user_attrs)
        parse = self.parse
        if parse is None:
            from audio_cls.experiment import Experiment

            parse = Experiment.from_json
        return dict(record.overrides), parse(experiment_text(record.experiment))


@dataclass(frozen=True)
class Enqueued:
    """What `enqueue` did: the cells of the study by now, and how many of them were added, adopted, and asked for again."""

    total: int
    added: int = 0
    adopted: int = 0
    again: int = 0


@dataclass(frozen=True)
class CellState:
    """How a cell stands. state: COMPLETE, FAILED, REFUSED, RUNNING or WAITING; epochs: how many are trained."""

    params: Mapping[str, str | int]
    key: str
    number: int
    state: str
    value: float | None
    epochs: int
    record: TrialRecord

    @property
    def id(self) -> str:
        return _id(self.params)


def enqueue(
    study: optuna.Study,
    storage: StudyStorage,
    cells: Sequence[Cell],
    *,
    known: Mapping[str, TrialRecord] | None = None,
    again: Collection[str] = (),
    rules: int = RULES,
) -> Enqueued:
    """Enqueue the cells that the study does not have, each exactly once, whoever else does so at this moment.

    A cell that was refused is asked for again.

    Args:
        rules: the version of the training rules of a list that begins here; one that has cells goes on by its own.
        known: results to take over, by `Cell.id`: a finished trial is added, as `TrialRecord.outcome` and `value` say.
        again: the ids of finished cells to run once more from nothing; their earlier results are superseded.

    Raises:
        LockBusy: when the study's lock was not had in time.
    """
    known = known or {}
    with storage.lock(study.study_name):
        trials = storage.backend.get_all_trials(study._study_id, deepcopy=False)
        have = {_id(record_of(t).cell["params"]): t for t in Tally.of(trials).latest.values()}
        begun = begun_rules(map(record_of, have.values()))
        rules = rules if begun is None else begun
        distributions = _distributions(study, storage, trials, cells)
        configs = (k for k in range(len(trials) + len(cells)) if k not in {record_of(t).config for t in have.values()})
        added = adopted = repeated = 0
        for cell in cells:
            if cell.id not in have:
                result = known.get(cell.id)
                study.add_trial(_trial(cell, next(configs), distributions, result, rules))
                adopted += result is not None
                added += result is None
            elif cell.id in again and is_finished(have[cell.id]):
                config = record_of(have[cell.id]).config
                assert config is not None
                anew = replace(cell, run_id=None, former="")
                study.add_trial(_trial(anew, config, distributions, None, rules))
                repeated += 1
        total = len(have) + added + adopted
        if study.user_attrs.get(TOTAL) != total:
            study.set_user_attr(TOTAL, total)
    queue = Queue(study, storage, worker_identity(), drawn=False)
    asked = {cell.id for cell in cells}
    for id, trial in have.items():
        refused = record_of(trial).outcome == REFUSED and id in asked and id not in again
        if refused and queue.requeue(trial.number, "asked for again") is not None:
            repeated += 1
    return Enqueued(total, added, adopted, repeated)


def begun_rules(records: Iterable[TrialRecord]) -> int | None:
    """Return the version of the training rules by which a list of cells began, from the records of its cells; None for no cell."""
    return min((int(record.cell.get("rules", FORMER)) for record in records), default=None)


def read_cells(study: optuna.Study) -> list[CellState]:
    """Return the cells of a study, in the order in which they were enqueued."""
    out = []
    for _, trial in sorted(Tally.of(study.get_trials(deepcopy=False)).latest.items()):
        record = record_of(trial)
        state = "REFUSED" if record.outcome == REFUSED else row_state(trial)
        params = record.cell["params"]
        epochs = len(trial.intermediate_values) or record.epochs or 0
        out.append(CellState(params, record.cell["key"], trial.number, state, record.value, epochs, record))
    return out


def finished_cells(storage: StudyStorage, keys: Collection[str], besides: str) -> dict[str, TrialRecord]:
    """Find complete cells with these keys in other studies; by key, `adopted_from` names the study and the trial."""
    found: dict[str, TrialRecord] = {}
    for name in study_names(storage, None):
        if name == besides or name in study_names(storage, SEARCH):
            continue
        for state in read_cells(load_study(name, storage)):
            if state.state == "COMPLETE" and state.key in keys and state.key not in found:
                found[state.key] = replace(state.record, adopted_from={"study": name, "trial": state.number})
    return found


def run_cells(
    work: Cells,
    cells: Sequence[Cell],
    workspace: Workspace,
    options: QueueOptions = USUAL,
    *,
    files: Iterable[Path] = (),
    only: Sequence[Cell] | None = None,
    on_progress: Callable[[StudyStatus], None] | None = None,
) -> StudyStatus:
    """Enqueue the cells that are missing and run all until they are finished, or until asked to leave; no worker is started where
    nothing is left to do.

    Args:
        files: those that declare own parts of the experiments; the workers load them.
        only: the cells to run; all unless given.

    Raises:
        UserError: when the study was started as another work, or workers keep dying.
    """
    storage = open_storage(options.storage or workspace.optuna_db, heartbeat=options.heartbeat)
    study = open_study(work, storage)
    enqueue(study, storage, cells)
    wanted = {cell.id for cell in (cells if only is None else only)}
    states = read_cells(study)
    left = [s for s in states if s.id in wanted and s.state in ("WAITING", "RUNNING")]
    if not left:
        return study_status(study)
    configs = None if only is None else [c for s in states if s.id in wanted and (c := s.record.config) is not None]
    arguments = {"work": {k: v for k, v in asdict(work).items() if k != "parse"}, "files": [str(f) for f in files]}
    target = WorkTarget("audio_cls.queue.cells:open_cells", arguments)
    return run_workers(work, workspace, len(states), target, options, only=configs, on_progress=on_progress)


def open_cells(session: Session, work: Mapping[str, Any], files: Sequence[str]) -> Worked:
    """Return the work of a worker process of `run_cells`."""
    load_files([Path(file) for file in files])
    runtime = session.runtime()
    cells = Cells(**work)
    return Worked(cells, cell_objective(runtime, cells.kind), finish=runtime.tracker.flush)


def cell_objective(runtime: Any, kind: Kind) -> Objective:
    """Return the objective of cells: it trains a cell's experiment and records it below the run that the cell names."""
    from audio_cls.runs.objective import Record

    def objective(trial: TrialContext) -> Outcome:
        cell = trial.record.cell
        record = Record(
            name=cell["name"],
            kind="fold" if kind == "folds" else "cell",
            parent=cell["parent"],
            run_id=trial.record.mlflow_run_id,
            tags={**cell["tags"], "trial": str(trial.number), "attempt": str(trial.attempt)},
            on_run_id=lambda run_id: trial.note(mlflow_run_id=run_id),
            params=cell["run_params"],
            on_facts=lambda facts: trial.note(facts=facts),
            rules=int(cell.get("rules", FORMER)),
        )
        former = cell.get("former")
        return run_tracked(trial, runtime, record, runtime.workspace.checkpoints / "runs" / former if former else None)

    return objective


def _id(params: Mapping[str, str | int]) -> str:
    return json.dumps(dict(params), sort_keys=True)


def _trial(
    cell: Cell, config: int, distributions: Mapping[str, BaseDistribution], result: TrialRecord | None, rules: int
) -> FrozenTrial:
    """Return the trial of a cell that waits; of one whose result is known, a finished one."""
    attrs = cell.attributes(config, rules)
    state, value = TrialState.WAITING, None
    if result is not None:
        attrs = {**result.attributes(), **attributes(config=config, ready=True, cell=attrs["cell"])}
        for name in ("worker", "root_trial", "resumed_from", "attempt", "deaths", "inherited_epochs"):
            attrs.pop(name, None)
        state, value = (TrialState.COMPLETE, result.value) if result.outcome == "complete" else (TrialState.FAIL, None)
    return create_trial(
        state=state, value=value, params=dict(cell.params), distributions=dict(distributions), user_attrs=attrs
    )


def _distributions(
    study: optuna.Study, storage: StudyStorage, trials: Sequence[FrozenTrial], cells: Sequence[Cell]
) -> dict[str, BaseDistribution]:
    """Return the distributions of the cells' parameters: a choice of texts, or whole numbers.

    Optuna wants the same choices in all trials of a study. A study that gets new arms has those of its trials extended: their
    values, indices of the choices, stay what they are.
    """
    out: dict[str, BaseDistribution] = {}
    for name in cells[0].params if cells else ():
        values = [cell.params[name] for cell in cells]
        whole = [v for v in values if isinstance(v, int)]
        if len(whole) == len(values):
            out[name] = IntDistribution(min(0, *whole), max(1, *whole))
            continue
        had = next((d for t in trials if isinstance(d := t.distributions.get(name), CategoricalDistribution)), None)
        before = list(had.choices) if had else []
        choices = list(dict.fromkeys([*before, *map(str, values)]))
        out[name] = CategoricalDistribution(choices)
        if had and len(choices) > len(before):
            _extend_choices(study, storage, name, out[name])
    return out


def _extend_choices(study: optuna.Study, storage: StudyStorage, name: str, distribution: BaseDistribution) -> None:
    statement = sa.text(
        "update trial_params set distribution_json = :new where param_name = :name "
        "and trial_id in (select trial_id from trials where study_id = :study)"
    )
    values = {"new": distribution_to_json(distribution), "name": name, "study": study._study_id}
    with storage.backend.engine.begin() as connection:
        connection.execute(statement, values)
