"""One run outside the queue, resumable on disk: `train` without folds or seeds.

A run's folder is named by the digests of its experiment and data, so asking for the same run again finds it: a finished one is
not trained twice, an interrupted one continues. A file lock, which the system releases when its holder dies, keeps a second
process away.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.locks import LockBusy, file_lock
from audio_cls.core.notices import say
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.experiment import Experiment
from audio_cls.runs.objective import Record, run_experiment
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.resolve import resolve
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.rules import CORRECTIONS, FORMER, corrections, former_note

__all__ = ["RunState", "SingleRun", "continue_run", "read_state", "run_folder", "run_key", "run_name", "train_single"]


@dataclass
class RunState:
    """What `run.json` says of a run: besides its state, the experiment it runs and the facts that a comparison rests on."""

    run_id: str | None = None
    state: str = "NEW"
    value: float | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    epoch: int = -1
    experiment: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    failure: str = ""  # the file with the whole traceback of a run that failed
    baseline: dict[str, float] = field(default_factory=dict)  # figures of a model that learned nothing, see `judgement`
    findings: list[str] = field(default_factory=list)  # what is wrong with its predictions, in sentences
    collapsed: dict[str, str] = field(default_factory=dict)  # why, by "best" and "last" epoch, see `collapse`

    @property
    def done(self) -> bool:
        return self.state in ("COMPLETE", "FAILED")

    @property
    def why(self) -> str:
        """The reason, and where more of it is kept."""
        return f"{self.reason}; the whole traceback is in {self.failure}" if self.failure else self.reason


@dataclass(frozen=True)
class SingleRun:
    """A run to train: its name, experiment and folder (`run_key`), and what its record in MLflow gets besides.

    sources: files to store with the run even if they declare none of its parts.
    log_model: log its weights as a model in MLflow when it is complete.
    """

    name: str
    experiment: Experiment
    key: str
    tags: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()
    log_model: bool = True


def run_key(experiment_digest: str, data_digest: str) -> str:
    """Return the name of a run's folder: the same experiment on the same data is the same run."""
    return f"{experiment_digest[:16]}-{data_digest[:8]}"


def run_folder(workspace: Workspace, key: str) -> Path:
    """Return the folder of a run's state and checkpoints."""
    return workspace.checkpoints / "runs" / key


def read_state(folder: Path) -> RunState:
    """Read the state of a run's folder; a fresh one if there is none."""
    path = folder / "run.json"
    if not path.exists():
        return RunState()
    return RunState(**json.loads(path.read_text(encoding="utf-8")))


def write_state(folder: Path, state: RunState) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "run.json", json.dumps(asdict(state), indent=2))


def train_single(
    experiment: Experiment,
    runtime: Runtime,
    *,
    name: str | None = None,
    again: bool = False,
    sources: Sequence[Path] = (),
    on_begin: Callable[[int], None] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> RunState:
    """Train an experiment as a run of its own; what it leaves to the data is resolved first.

    A finished run of the same experiment on the same data is returned as it is. With `again` its folder is renamed and it is
    trained again. See `continue_run` for the rest.
    """
    return continue_run(single_run(experiment, runtime, name, sources), runtime, again, on_begin, on_epoch)


def single_run(
    experiment: Experiment, runtime: Runtime, name: str | None = None, sources: Sequence[Path] = ()
) -> SingleRun:
    """Return the run of an experiment, resolved for its corpus; `name` defaults to its model and features."""
    corpus = runtime.corpus(experiment.data)
    resolved = resolve(experiment, corpus)
    settled = resolved.experiment
    name = run_name(settled, name)
    tags = {"seed": str(settled.seed), **resolved.tags}
    return SingleRun(name, settled, run_key(settled.digest(), corpus.digest), tags, tuple(sources))


def run_name(experiment: Experiment, name: str | None = None) -> str:
    """Return the name of a run: the one given, else model and features; a capacity check says that it is one."""
    name = name or f"{experiment.model.kind} {experiment.features.kind}"
    return f"overfit: {name}" if experiment.data.overfit else name


def continue_run(
    run: SingleRun,
    runtime: Runtime,
    again: bool = False,
    on_begin: Callable[[int], None] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> RunState:
    """Train a run from its newest checkpoint on, unless it is finished.

    `on_begin(epochs)` gets the number of epochs that an earlier process finished, `on_epoch(epoch, value)` each epoch trained
    here and its value of the chosen metric. `runtime.watch` is asked whether to leave.

    Raises:
        UserError: when another process is training this run, or the experiment cannot be built.
    """
    folder = run_folder(runtime.workspace, run.key)
    with _claim(folder, run.name):
        if again:
            _set_aside(folder)
        state = read_state(folder)
        if state.done:
            if missing := _missing_corrections(run, runtime, state.facts):
                say(
                    f"{run.name} was trained by former training rules, without: {missing}. By the present ones: --again"
                )
            return state
        state.experiment = run.experiment.to_dict()
        store = CheckpointStore(folder)
        found = store.load()
        begun = state.epoch = found[0].state["epoch"] if found else -1
        if (
            found
            and found[0].state.get("rules", FORMER) == FORMER
            and (missing := _missing_corrections(run, runtime, {}))
        ):
            say(former_note(run.name, missing, "--again"))
        if on_begin:
            on_begin(begun + 1)

        def remember(run_id: str) -> None:
            state.run_id = run_id
            write_state(folder, state)

        def know(facts: dict[str, str]) -> None:
            state.facts = facts

        def report(epoch: int, value: float) -> None:
            if epoch < begun:  # reported again: an earlier process trained it
                return
            state.state, state.epoch, state.value = "RUNNING", epoch, value
            write_state(folder, state)
            if on_epoch and epoch > begun:
                on_epoch(epoch, value)

        record = Record(
            run.name, "run", None, state.run_id, dict(run.tags), run.sources,
            on_run_id=remember, on_facts=know, log_model=run.log_model,
        )  # fmt: skip
        watch = runtime.watch
        outcome = run_experiment(
            run.experiment, runtime, record, store,
            report=report, should_stop=watch.should_stop, leave_now=watch.leave_now,
        )  # fmt: skip
        state.state, state.value, state.reason = outcome.state, outcome.value, outcome.reason
        state.metrics, state.last, state.cost = outcome.metrics, outcome.last, outcome.attrs.get("cost", {})
        state.failure = outcome.attrs.get("failure", "")
        state.baseline, state.findings = outcome.attrs.get("baseline", {}), outcome.attrs.get("findings", [])
        state.collapsed = outcome.attrs.get("collapsed", {})
        write_state(folder, state)
        return state


def _missing_corrections(run: SingleRun, runtime: Runtime, facts: Mapping[str, str]) -> str:
    """Return what the present training rules correct in a run, where its facts say that it was trained without."""
    corpus = runtime.corpus(run.experiment.data)
    present = corrections(run.experiment, len(run.experiment.data.assign(corpus).train))
    return "" if facts.get(CORRECTIONS, "") == present else present


@contextmanager
def _claim(folder: Path, name: str) -> Iterator[None]:
    """Be the one process that works on a run.

    Raises:
        UserError: when another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(folder / "claim.lock", timeout=0.0))
        except LockBusy as busy:
            raise UserError(
                f"{name}: another process is training this very run (checkpoints/runs/{folder.name}): {busy.holder}"
            ) from None
        yield


def _set_aside(folder: Path) -> None:
    """Move what is in a run's folder to a folder beside it, so that the run is trained again; nothing is deleted."""
    aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    for path in [p for p in folder.iterdir() if p.name != "claim.lock"]:
        aside.mkdir(exist_ok=True)
        path.rename(aside / path.name)
