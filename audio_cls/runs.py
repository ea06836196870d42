"""Runs outside a study: one experiment, or a grid of them (folds x seeds, arms x folds x seeds), resumable on disk.

A run's folder is named by what it is (the digests of experiment and data), so asking for the same run again finds it: a finished
one is not trained twice, an interrupted one goes on. A run is claimed by a file lock that the system releases when its holder
dies; any number of workers can walk the same grid, and running the grid again fills only its holes.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from audio_cls.disk import DiskFull
from audio_cls.errors import UserError
from audio_cls.interpreter import python_command, safe_environment
from audio_cls.workspace import Workspace, atomic_write

__all__ = ["GridItem", "RunState", "Stopper", "item_folder", "read_state", "run_grid", "run_item", "worker_main"]

GRACE_SECONDS = 60.0  # to finish an epoch in, once asked to leave
DISK_FULL = 3  # the exit code of a worker that left for want of room


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

    @property
    def done(self) -> bool:
        return self.state in ("COMPLETE", "FAILED")

    @property
    def why(self) -> str:
        """The reason, and where more of it is kept."""
        return f"{self.reason}; the whole traceback is in {self.failure}" if self.failure else self.reason


@dataclass
class GridItem:
    """One cell of a grid: a name, the experiment as a dictionary, tags and further parameters for its run, and the run's parent
    where that is not the grid's."""

    name: str
    experiment: dict[str, Any]
    key: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    parent: str | None = None


class Stopper:
    """Turns SIGINT and SIGTERM into a question that training asks after each epoch; a second signal ends at once.

    An epoch that takes longer than `grace_seconds` from then on is left at its next step.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.reason: str | None = None
        self.grace_seconds = grace_seconds
        self._asked_at = 0.0
        self._parent = os.getppid()
        self._watch_parent = False

    def install(self, watch_parent: bool = False) -> Stopper:
        self._watch_parent = watch_parent
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.reason:
            raise KeyboardInterrupt
        self.reason, self._asked_at = f"interrupted: {signal.Signals(number).name}", time.monotonic()

    def leave_now(self) -> str | None:
        """Asked at each step."""
        if self.reason is None or time.monotonic() - self._asked_at < self.grace_seconds:
            return None
        return f"{self.reason}, and the epoch took longer than {self.grace_seconds:g} s"

    def __call__(self) -> str | None:
        if self._watch_parent and os.getppid() != self._parent:
            return "interrupted: the command that started this worker is gone"
        return self.reason


def run_key(experiment_digest: str, data_digest: str) -> str:
    """The name of a run's folder: the same experiment on the same data is the same run."""
    return f"{experiment_digest[:16]}-{data_digest[:8]}"


def item_folder(workspace: Workspace, key: str) -> Path:
    return workspace.checkpoints / "runs" / key


def read_state(folder: Path) -> RunState:
    """The state of a run's folder; a fresh one where there is none."""
    path = folder / "run.json"
    if not path.exists():
        return RunState()
    return RunState(**json.loads(path.read_text(encoding="utf-8")))


def write_state(folder: Path, state: RunState) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "run.json", json.dumps(asdict(state), indent=2))


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Try to become the one process that works on a run; the lock goes with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "claim.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run_item(
    item: GridItem,
    runtime: Any,
    *,
    parent: str | None,
    kind: str,
    should_stop: Callable[[], str | None] | None = None,
    leave_now: Callable[[], str | None] | None = None,
    sources: tuple[Path, ...] = (),
    on_epoch: Callable[[int, float], None] | None = None,
) -> RunState | None:
    """Train one cell unless it is done; None when another process holds it."""
    from audio_cls.checkpoint import CheckpointStore
    from audio_cls.experiment import Experiment
    from audio_cls.objective import Record, run_experiment

    folder = item_folder(runtime.workspace, item.key)
    with claim(folder) as mine:
        if not mine:
            return None
        state = read_state(folder)
        if state.done:
            return state
        experiment = Experiment.parse(item.experiment, item.name)
        state.experiment = item.experiment

        def remember(run_id: str) -> None:
            state.run_id = run_id
            write_state(folder, state)

        def know(facts: dict[str, str]) -> None:
            state.facts = facts

        def report(epoch: int, value: float) -> None:
            state.state, state.epoch, state.value = "RUNNING", epoch, value
            write_state(folder, state)
            if on_epoch:
                on_epoch(epoch, value)

        record = Record(
            item.name, kind, item.parent or parent, state.run_id, item.tags, sources, remember, item.params, know
        )
        outcome = run_experiment(
            experiment,
            runtime,
            record,
            CheckpointStore(folder),
            report=report,
            should_stop=should_stop,
            leave_now=leave_now,
        )
        state.state, state.value, state.reason = outcome.state, outcome.value, outcome.reason
        state.metrics, state.last, state.cost = outcome.metrics, outcome.last, outcome.attrs.get("cost", {})
        state.failure = outcome.attrs.get("failure", "")
        state.baseline, state.findings = outcome.attrs.get("baseline", {}), outcome.attrs.get("findings", [])
        write_state(folder, state)
        return state


def run_grid(
    items: Sequence[GridItem],
    workspace: Workspace,
    *,
    workers: int,
    parent: str | None,
    kind: str,
    device: str = "auto",
    files: Sequence[Path] = (),
    on_poll: Callable[[list[RunState]], None] | None = None,
    poll_seconds: float = 0.5,
    grace_seconds: float = GRACE_SECONDS,
) -> list[RunState]:
    """Walk a grid with `workers` processes until all cells are done, or until interrupted.

    A worker that dies is replaced (three times at most for each); SIGINT and SIGTERM let the workers finish their epoch, for
    `grace_seconds` at most. One that meets a full disk ends the grid.

    Raises:
        DiskFull: when a worker left for want of room; what is durable is kept.
    """
    plan = workspace.checkpoints / "plans" / f"{os.getpid()}-{time.time_ns()}.json"
    plan.parent.mkdir(parents=True, exist_ok=True)
    todo = {
        "items": [asdict(i) for i in items],
        "parent": parent,
        "kind": kind,
        "device": device,
        "files": [str(f) for f in dict.fromkeys([*files, *_declaring(items)])],
        "grace_seconds": grace_seconds,
    }
    atomic_write(plan, json.dumps(todo))
    cores = os.cpu_count() or 1
    threads = max(1, cores // workers)
    env = {**safe_environment(), "OMP_NUM_THREADS": str(threads), **workspace.environment()}
    command = python_command("audio_cls.runs", str(plan), str(threads))
    stop = Stopper().install()
    processes: list[subprocess.Popen[bytes]] = []
    logs = workspace.checkpoints / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def start(slot: int) -> subprocess.Popen[bytes]:
        with open(logs / f"grid-{slot}.log", "ab") as log:
            return subprocess.Popen(
                command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    folders = [item_folder(workspace, item.key) for item in items]
    try:
        processes = [start(i) for i in range(min(workers, max(1, len(items))))]
        restarts = [3] * len(processes)
        told = False
        while True:
            states = [read_state(folder) for folder in folders]
            if on_poll:
                on_poll(states)
            alive = [p for p in processes if p.poll() is None]
            if any(p.poll() == DISK_FULL for p in processes):
                full = next((s.reason for s in states if s.reason.startswith("disk full")), "disk full")
                raise DiskFull(f"{full}. Make room and run the same command again; nothing that was durable is lost")
            if stop() and not told:
                told = True
                for process in alive:
                    process.send_signal(signal.SIGTERM)
            if not told:
                for slot, process in enumerate(processes):
                    if process.poll() not in (None, 0) and restarts[slot] and not all(s.done for s in states):
                        restarts[slot] -= 1
                        processes[slot] = start(slot)
                alive = [p for p in processes if p.poll() is None]
            if not alive:
                return [read_state(folder) for folder in folders]
            time.sleep(poll_seconds)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        plan.unlink(missing_ok=True)


def _declaring(items: Sequence[GridItem]) -> list[Path]:
    """The files that declare the own parts of a grid's experiments: its workers load them."""
    from audio_cls.experiment import Experiment
    from audio_cls.own_parts import entry_files

    return entry_files(Experiment.parse(item.experiment, item.name) for item in items)


def worker_main(plan: Path, threads: int) -> int:
    """One worker of a grid: claims cells in order until none is left."""
    from audio_cls.device import choose_device, tune_process
    from audio_cls.loading import load_files
    from audio_cls.preparation import Runtime
    from audio_cls.tracking import Tracker

    todo = json.loads(plan.read_text(encoding="utf-8"))
    stop = Stopper(todo["grace_seconds"]).install(watch_parent=True)
    tune_process(threads)
    load_files([Path(f) for f in todo["files"]])
    workspace = Workspace.find()
    runtime = Runtime(workspace, Tracker(workspace), choose_device(todo["device"]))
    for raw in todo["items"]:
        if stop():
            break
        item = GridItem(**raw)
        try:
            state = run_item(
                item, runtime, parent=todo["parent"], kind=todo["kind"], should_stop=stop, leave_now=stop.leave_now
            )
            if state and state.reason.startswith("disk full"):
                return DISK_FULL
        except UserError as error:  # no reason to leave the other cells undone
            print(f"{item.name}: {error}", file=sys.stderr, flush=True)
            _refuse(item_folder(workspace, item.key), str(error))
    runtime.tracker.flush()
    return 0


def _refuse(folder: Path, reason: str) -> None:
    """A cell that cannot be built is not done: it is tried again when the grid is."""
    state = read_state(folder)
    state.state, state.reason = "REFUSED", reason
    write_state(folder, state)


if __name__ == "__main__":
    sys.exit(worker_main(Path(sys.argv[1]), int(sys.argv[2])))
