"""What a suite leaves behind: its own small file, the cells of its grid on disk, and their runs in MLflow.

Figures are read from the cells' `run.json`, which is durable before MLflow is told; MLflow's parameters and tags are read to be
checked against it. A suite is known by its name: `checkpoints/suites/NAME.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.ablation.contract import Plan, Planned
from audio_cls.ablation.declaration import Ablation, Cell, identity_changes
from audio_cls.core.errors import UserError, choices
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.runs.folds import fold_label
from audio_cls.runs.grid import GridItem, item_folder, read_state
from audio_cls.runs.resolve import RULES
from audio_cls.tracking.suites import arm_colours

if TYPE_CHECKING:
    from audio_cls.tracking import Tracker

__all__ = [
    "Recorded",
    "SuiteState",
    "grid_items",
    "join_suite",
    "read_records",
    "read_suite",
    "restore",
    "suite_names",
    "suite_rules",
    "write_suite",
]


@dataclass
class SuiteState:
    """What `checkpoints/suites/NAME.json` says: the declaration that the suite was started with, and its runs in MLflow.

    seeds: all that were ever asked for. data: the corpus's digest. tuned: the overrides that each arm's search found. sources: the
    digests of the files that declare parts of the user's own.
    data_rules: the version of the rules by which what is left to the data was chosen (`audio_cls.runs.resolve`).
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


@dataclass(frozen=True)
class Recorded:
    """One cell as it was recorded. `facts` are those of `preparation.run_facts` (empty before it has begun); `params` and `tracked`
    (tags) are what MLflow says, empty where it cannot be asked."""

    arm: str
    seed: int
    fold: int
    state: str
    reason: str
    run_id: str | None
    experiment: dict[str, Any]
    facts: dict[str, str]
    metrics: dict[str, float]
    last: dict[str, float]
    cost: dict[str, float]
    params: dict[str, str] = field(default_factory=dict)
    tracked: dict[str, str] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        return self.seed, self.fold

    @property
    def done(self) -> bool:
        return self.state in ("COMPLETE", "FAILED")

    @property
    def words(self) -> str:
        return f"arm {self.arm!r}, seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")

    def figure(self, metric: str, select: str) -> float | None:
        """The run's figure; NaN for one that failed (to leave it out would flatter the arm that fails), None while not done."""
        if not self.done:
            return None
        values = self.last if select == "last" else self.metrics
        return values.get(metric.rpartition("/")[2], nan) if self.state == "COMPLETE" else nan


def _path(workspace: Workspace, name: str) -> Path:
    return workspace.checkpoints / "suites" / f"{name}.json"


def suite_names(workspace: Workspace) -> list[str]:
    """The suites of a workspace."""
    return sorted(p.stem for p in (workspace.checkpoints / "suites").glob("*.json"))


def read_suite(workspace: Workspace, name: str) -> SuiteState:
    """The state of a suite.

    Raises:
        UserError: when no suite of that name was ever run here.
    """
    path = _path(workspace, name)
    if not path.exists():
        raise UserError(
            f"no suite {name!r} in {workspace.root}. {choices(name, suite_names(workspace))} Start one with: audio-cls ablate run FILE"
        )
    return SuiteState(**json.loads(path.read_text(encoding="utf-8")))


def suite_rules(workspace: Workspace, name: str) -> int:
    """The version of the rules that a suite was begun with; the present one for a suite that is not there yet."""
    return read_suite(workspace, name).data_rules if _path(workspace, name).exists() else RULES


def write_suite(workspace: Workspace, state: SuiteState) -> None:
    atomic_write(_path(workspace, state.name), json.dumps(asdict(state), indent=2, ensure_ascii=False))


def restore(state: SuiteState) -> Ablation:
    """The ablation as it was stored, with all its seeds; components of a user's own must have been loaded."""
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
    )


def join_suite(ablation: Ablation, workspace: Workspace, corpus: Corpus, file: Path) -> SuiteState:
    """The suite that a declaration starts or goes on with; seeds, folds and arms that are new are added to it.

    Raises:
        UserError: when the suite of this name was started with another declaration, or on other data: naming what differs.
    """
    folds = list(ablation.folds) if isinstance(ablation.folds, tuple) else ablation.folds
    new = SuiteState(
        ablation.name, ablation.identity(), ablation.base.data.corpus, corpus.digest, list(ablation.seeds), folds, ablation.question, str(file),  # type: ignore[arg-type]
        data_rules=RULES,
    )  # fmt: skip
    if not _path(workspace, ablation.name).exists():
        return new
    old = read_suite(workspace, ablation.name)
    changes = identity_changes(old.identity, ablation)
    if old.data != corpus.digest:
        changes.append(f"data: {old.corpus} {old.data[:16]} -> {corpus.name} {corpus.digest[:16]}")
    if changes:
        listed = "\n  ".join(changes)
        raise UserError(
            f"the suite {ablation.name!r} was started with another declaration:\n  {listed}\n"
            "Its runs cannot be mixed with new ones: undo the change, or give the suite another name"
        )
    new.identity["arms"] = {**old.identity["arms"], **new.identity["arms"]}
    new.seeds = sorted({*old.seeds, *new.seeds})
    if isinstance(old.folds, list) and isinstance(new.folds, list):
        new.folds = sorted({*old.folds, *new.folds})
    new.run_id, new.arms, new.tuned, new.sources = old.run_id, old.arms, old.tuned, old.sources
    new.data_rules = old.data_rules
    return new


def item_key(suite: str, planned: Planned, data_digest: str) -> str:
    """A cell's folder. Not by the experiment's digest: a version that adds a key must still find it (`join_suite` compares)."""
    return f"{suite}.{planned.arm}.seed{planned.seed}.fold{planned.fold}.{data_digest[:8]}"


def grid_items(ablation: Ablation, plan: Plan, corpus: Corpus, arm_runs: dict[str, str]) -> list[GridItem]:
    """The grid's cells for `run_grid`, each below its arm's run."""
    colours = arm_colours(list(ablation.arms))
    return [
        GridItem(
            name=f"{p.arm} seed {p.seed}"
            + (f" {fold_label(p.fold, plan.fold_names[p.fold])}" if ablation.fold_key else ""),
            experiment=p.experiment.to_dict(),
            key=item_key(ablation.name, p, corpus.digest),
            tags={
                "ablation.suite": ablation.name,
                "ablation.arm": p.arm,
                "seed": str(p.seed),
                "fold": str(p.fold),
                **colours[p.arm],
            },
            params={"ablation.suite": ablation.name, "ablation.arm": p.arm},
            parent=arm_runs.get(p.arm),
        )
        for p in plan.cells
    ]


def read_records(
    ablation: Ablation, plan: Plan, corpus: Corpus, workspace: Workspace, tracker: Tracker | None = None
) -> list[Recorded]:
    """The cells of a plan as they stand, in its order, with what MLflow says of them when a tracker is given."""
    tracked: dict[str, Any] = {}
    if tracker is not None:
        query = f"params.`ablation.suite` = '{ablation.name}' and tags.kind = 'cell'"
        for run in tracker.runs(filter=query):
            tracked[run.run_id] = tracked[run.tags.get("local_uid", run.run_id)] = run
    records = []
    for p in plan.cells:
        state = read_state(item_folder(workspace, item_key(ablation.name, p, corpus.digest)))
        info = tracked.get(state.run_id or "")
        records.append(
            Recorded(
                p.arm, p.seed, p.fold, state.state, state.reason, info.run_id if info else state.run_id, state.experiment,
                state.facts, state.metrics, state.last, state.cost, info.params if info else {}, info.tags if info else {},
            )
        )  # fmt: skip
    return records


def openings(records: Sequence[Recorded]) -> list[str]:
    """A line for the runs whose test split has been opened: those opened together are named together."""
    together: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.tracked.get("test.openings"):
            key = r.tracked["test.openings"], r.tracked.get("test.first_opened", "unknown")
            together.setdefault(key, []).append(r.words)
    return [
        f"{words[0]}{f' and {len(words) - 1} more runs' if len(words) > 1 else ''}: opened {count} time(s), first {first}"
        for (count, first), words in together.items()
    ]
