"""The state of a suite: its declaration and its runs in MLflow, kept in its Optuna study so that several machines share it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from audio_cls.ablation.declaration import Ablation, identity_changes
from audio_cls.ablation.looks import describe_looks
from audio_cls.ablation.ranking import former_note
from audio_cls.core.errors import UserError, choices
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.published import check_published, published_lines, stored_published
from audio_cls.queue.cells import Cells, CellState, read_cells
from audio_cls.queue.status import StudyStatus, stored_status
from audio_cls.queue.storage import StudyStorage, load_study, open_storage, open_study, study_names
from audio_cls.queue.work import Kind
from audio_cls.runs.resolve import RULES

__all__ = [
    "KIND",
    "SuiteState",
    "cells_of",
    "existing_storage",
    "find_state",
    "is_converted",
    "join_suite",
    "list_others",
    "read_state",
    "remarks_of",
    "restore",
    "store_state",
    "suite_names",
    "suite_work",
]

KIND: Kind = "ablation"
OTHERS: tuple[Kind, ...] = ("folds", "confirmation")
T = TypeVar("T")
_STATE = "suite"  # user attribute of the study


@dataclass
class SuiteState:
    """The declaration that a suite was started with, and its runs in MLflow.

    seeds: all that were ever asked for. data: the corpus's digest. tuned: the overrides that each arm's search found. sources: the
    digests of the files that declare parts of the user's own.
    data_rules: the version of the rules by which what is left to the data was chosen (`audio_cls.runs.resolve`).
    published: figures of others, as the declaration last had them.
    """

    name: str
    identity: dict[str, Any]
    corpus: str
    data: str
    seeds: list[int]
    folds: list[int] | str | None
    question: str = ""
    file: str = ""
    run_id: str | None = None
    arms: dict[str, str] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    data_rules: int = 0
    published: list[dict[str, Any]] = field(default_factory=list)


def suite_work(state: SuiteState) -> Cells:
    """Return the work of a suite's cells: its Optuna study."""
    metric = state.identity["metric"][0]
    return Cells(f"{KIND}:{state.name}", KIND, metric, check_metric(metric), {"data": state.data})


def existing_storage(workspace: Workspace, address: str | Path | None) -> StudyStorage | None:
    """Open the storage at an address, by default the workspace's own; None if that does not exist yet."""
    text = str(address or workspace.optuna_db)
    if ("://" not in text or text.startswith("sqlite")) and not Path(text.removeprefix("sqlite:///")).exists():
        return None
    return open_storage(text, must_exist=True)


def _former_file(workspace: Workspace, name: str) -> Path:
    """Return where versions before the queue kept the state of a suite."""
    return workspace.checkpoints / "suites" / f"{name}.json"


def suite_names(workspace: Workspace, storage: StudyStorage | None) -> list[str]:
    """Return the names of the suites in a storage, and of those of earlier versions in the workspace."""
    former = {p.stem for p in (workspace.checkpoints / "suites").glob("*.json")}
    stored = study_names(storage, KIND) if storage is not None else []
    return sorted(former | {name.removeprefix(f"{KIND}:") for name in stored})


def find_state(workspace: Workspace, storage: StudyStorage | None, name: str) -> SuiteState | None:
    """Read the state of a suite, also one of an earlier version that is not in the storage yet; None if there is none."""
    if storage is not None and f"{KIND}:{name}" in study_names(storage, KIND):
        stored = load_study(f"{KIND}:{name}", storage).user_attrs.get(_STATE)
        if stored is not None:
            return SuiteState(**stored)
    path = _former_file(workspace, name)
    return SuiteState(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def read_state(workspace: Workspace, storage: StudyStorage | None, name: str) -> SuiteState:
    """Read the state of a suite.

    Raises:
        UserError: when there is no suite of that name.
    """
    state = find_state(workspace, storage, name)
    if state is None:
        where = storage.shown if storage is not None else str(workspace.root)
        known = choices(name, suite_names(workspace, storage))
        raise UserError(f"no suite {name!r} in {where}. {known} Start one with: audio-cls ablate run FILE")
    return state


def store_state(state: SuiteState, storage: StudyStorage, prepare: Callable[[], T]) -> T:
    """Write the state of a suite into its Optuna study, which is created where it is missing.

    What another machine has added since it was read (runs in MLflow, seeds, arms, tuned overrides) is kept; `state` is brought
    up to date. `prepare` is called in between, alone among all machines, and may change the state; its result is returned.
    """
    study = open_study(suite_work(state), storage)
    with storage.lock(study.study_name):
        merge_states(state, study.user_attrs.get(_STATE))
        result = prepare()
        study.set_user_attr(_STATE, asdict(state))
    return result


def is_converted(state: SuiteState, storage: StudyStorage | None) -> bool:
    """Whether a suite is in the queue; one of an earlier version is not, before it is touched."""
    name = suite_work(state).name
    return storage is not None and name in study_names(storage, KIND) and _STATE in load_study(name, storage).user_attrs


def merge_states(state: SuiteState, stored: dict[str, Any] | None) -> None:
    """Add to a state what the stored one holds besides."""
    if stored is None:
        return
    old = SuiteState(**stored)
    state.identity["arms"] = {**old.identity["arms"], **state.identity["arms"]}
    state.seeds = sorted({*old.seeds, *state.seeds})
    if isinstance(old.folds, list) and isinstance(state.folds, list):
        state.folds = sorted({*old.folds, *state.folds})
    state.run_id = old.run_id or state.run_id
    state.arms = {**state.arms, **old.arms}
    state.tuned = {**state.tuned, **old.tuned}
    state.sources = list(dict.fromkeys([*old.sources, *state.sources]))
    state.data_rules = old.data_rules


def cells_of(name: str, workspace: Workspace, storage: str | Path | None = None) -> tuple[StudyStatus, list[CellState]]:
    """Return the status and the cells of a suite, or of a cross-validation or confirmation by the full name of its study.

    Raises:
        UserError: when there is none of that name.
    """
    where = existing_storage(workspace, storage)
    study = name if ":" in name else f"{KIND}:{name}"
    known = [] if where is None else [n for kind in (KIND, *OTHERS) for n in study_names(where, kind)]
    if where is None or study not in known:
        listed = choices(name, [n.removeprefix(f"{KIND}:") for n in known])
        raise UserError(f"no suite {name!r} in {where.shown if where else workspace.root}. {listed}")
    return stored_status(study, where), read_cells(load_study(study, where))


def remarks_of(study: str, workspace: Workspace, storage: str | Path | None = None) -> list[str]:
    """Return what a reader of the figures of a suite or confirmation must know, in sentences; `study` is its full name."""
    where = existing_storage(workspace, storage)
    assert where is not None
    attributes = load_study(study, where).user_attrs
    if study.startswith(f"{KIND}:"):
        state = attributes.get(_STATE, {})
        published = check_published(study, state.get("published", ()), state.get("identity", {}).get("arms", ()))
        return [*describe_looks(attributes), *published_lines(published)]
    if not study.startswith("confirmation:"):
        return []
    note = former_note(attributes)
    return [*([note] if note else []), *describe_looks(attributes)]


def list_others(workspace: Workspace, storage: str | Path | None = None) -> list[StudyStatus]:
    """Return the status of each cross-validation and confirmation."""
    where = existing_storage(workspace, storage)
    return [] if where is None else [stored_status(n, where) for kind in OTHERS for n in study_names(where, kind)]


def restore(state: SuiteState) -> Ablation:
    """Return the ablation as it was stored, with all its seeds; components of a user's own must have been loaded."""
    identity = state.identity
    folds: Any = state.folds
    return Ablation(
        state.name,
        Experiment.parse(identity["base"], f"suite {state.name}: base"),
        identity["reference"],
        identity["arms"],
        metric=identity["metric"],
        seeds=state.seeds,
        folds=folds,
        budget=identity["budget"],
        unit=identity["unit"],
        select=identity["select"],
        differs=tuple(identity["differs"]),
        margin=identity["margin"],
        question=state.question,
        published=state.published,  # type: ignore[arg-type]
    )


def join_suite(ablation: Ablation, old: SuiteState | None, corpus: Corpus, file: Path | None) -> SuiteState:
    """Return the state of the suite that a declaration starts or continues with; new seeds, folds and arms are added to `old`.

    Raises:
        UserError: when the suite of this name was started with another declaration, or on other data: naming what differs.
    """
    folds = list(ablation.folds) if isinstance(ablation.folds, tuple) else ablation.folds
    new = SuiteState(
        ablation.name, ablation.identity(), ablation.base.data.corpus, corpus.digest, list(ablation.seeds), folds, ablation.question,  # type: ignore[arg-type]
        str(file) if file else "", data_rules=RULES, published=stored_published(tuple(ablation.published)),
    )  # fmt: skip
    if old is None:
        return new
    changes = identity_changes(old.identity, ablation)
    if old.data != corpus.digest:
        changes.append(f"data: {old.corpus} {old.data[:16]} -> {corpus.name} {corpus.digest[:16]}")
    if changes:
        listed = "\n  ".join(changes)
        raise UserError(
            f"the suite {ablation.name!r} was started with another declaration:\n  {listed}\n"
            "Its runs cannot be mixed with new ones: undo the change, or give the suite another name"
        )
    merge_states(new, asdict(old))
    new.file = new.file or old.file
    return new
