"""Runs outside a study: one experiment, or a grid of them (folds x seeds, arms x folds x seeds), resumable on disk.

A run's folder is named by what it is (the digests of experiment and data), so asking for the same run again finds it: a finished
one is not trained twice, an interrupted one goes on. A run is claimed by a file lock that the system releases when its holder
dies; any number of workers can walk the same grid, and running the grid again fills only its holes.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from audio_cls.core.disk import DiskFull
from audio_cls.core.errors import UserError
from audio_cls.core.interpreter import python_command, safe_environment
from audio_cls.core.phases import PHASE_FILE, read_phases, write_phase
from audio_cls.core.stopping import GRACE_SECONDS, StopRequest, Watch
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.runs.single import RunState, read_state, run_key, write_state
from audio_cls.runs.single import run_folder as item_folder

__all__ = [
    "GridItem",
    "RunState",
    "item_folder",
    "read_state",
    "run_grid",
    "run_item",
    "run_key",
    "worker_main",
    "write_state",
]

log = logging.getLogger(__name__)
LEAVE_SECONDS = 15.0  # for a worker to record that it leaves, once the grace is over
DISK_FULL = 3  # the exit code of a worker that left for want of room


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
    sources: tuple[Path, ...] = (),
    on_begin: Callable[[int], None] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> RunState | None:
    """Train one cell unless it is done; None when another process holds it.

    `on_begin(epochs)` is told how many epochs an earlier process has finished, `on_epoch(epoch, value)` of each that is trained here. `runtime.watch` is asked whether to leave.
    """
    from audio_cls.experiment import Experiment
    from audio_cls.runs.objective import Record, run_experiment
    from audio_cls.training.checkpoint import CheckpointStore

    folder = item_folder(runtime.workspace, item.key)
    with claim(folder) as mine:
        if not mine:
            return None
        state = read_state(folder)
        if state.done:
            return state
        experiment = Experiment.parse(item.experiment, item.name)
        state.experiment = item.experiment
        store = CheckpointStore(folder)
        found = store.load()
        begun = state.epoch = found[0].state["epoch"] if found else -1
        if on_begin:
            on_begin(begun + 1)

        def remember(run_id: str) -> None:
            state.run_id = run_id
            write_state(folder, state)

        def know(facts: dict[str, str]) -> None:
            state.facts = facts

        def report(epoch: int, value: float) -> None:
            if epoch < begun:  # told again of what an earlier process has trained
                return
            state.state, state.epoch, state.value = "RUNNING", epoch, value
            write_state(folder, state)
            if on_epoch and epoch > begun:
                on_epoch(epoch, value)

        record = Record(
            item.name, kind, item.parent or parent, state.run_id, item.tags, sources, remember, item.params, know
        )
        outcome = run_experiment(
            experiment,
            runtime,
            record,
            store,
            report=report,
            should_stop=runtime.watch.should_stop,
            leave_now=runtime.watch.leave_now,
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
    on_poll: Callable[[list[RunState], str], None] | None = None,
    poll_seconds: float = 0.5,
    grace_seconds: float = GRACE_SECONDS,
) -> list[RunState]:
    """Walk a grid with `workers` processes until all cells are done, or until interrupted.

    A worker that dies is replaced (three times at most for each); SIGINT and SIGTERM let the workers finish their epoch, for
    `grace_seconds` at most; a second Ctrl-C ends them at once. One that meets a full disk ends the grid. `on_poll` is told the
    states of the cells, and in a few words what the workers are doing besides training.

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
        "supervisor": os.getpid(),
    }
    atomic_write(plan, json.dumps(todo))
    cores = os.cpu_count() or 1
    threads = max(1, cores // workers)
    env = {**safe_environment(), "OMP_NUM_THREADS": str(threads), **workspace.environment()}
    command = python_command("audio_cls.runs.grid", str(plan), str(threads))
    phases = [plan.with_suffix(f".{i}.phase") for i in range(min(workers, max(1, len(items))))]
    processes: list[subprocess.Popen[bytes]] = []
    logs = workspace.checkpoints / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def start(slot: int) -> subprocess.Popen[bytes]:
        mine = {**env, PHASE_FILE: str(phases[slot])}
        with open(logs / f"grid-{slot}.log", "ab") as out:
            return subprocess.Popen(
                command, env=mine, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    folders = [item_folder(workspace, item.key) for item in items]
    try:
        with StopRequest() as stop:
            processes += [start(i) for i in range(len(phases))]
            restarts = [3] * len(processes)
            deadline: float | None = None
            while True:
                states = [read_state(folder) for folder in folders]
                if on_poll:
                    on_poll(states, read_phases(phases))
                if any(p.poll() == DISK_FULL for p in processes):
                    full = next((s.reason for s in states if s.reason.startswith("disk full")), "disk full")
                    raise DiskFull(
                        f"{full}. Make room and run the same command again; nothing that was durable is lost"
                    )
                if stop.reason() and deadline is None:
                    deadline = time.monotonic() + grace_seconds + LEAVE_SECONDS
                    log.warning("%s: the workers finish their epoch and leave, in %g s at most; Ctrl-C again ends them at once",
                                stop.reason(), grace_seconds)  # fmt: skip
                    for process in processes:
                        if process.poll() is None:
                            process.send_signal(signal.SIGTERM)
                if deadline is None and not all(s.done for s in states):
                    for slot, process in enumerate(processes):
                        if process.poll() not in (None, 0) and restarts[slot]:
                            restarts[slot] -= 1
                            processes[slot] = start(slot)
                alive = [p for p in processes if p.poll() is None]
                if not alive:
                    return [read_state(folder) for folder in folders]
                if deadline is not None and time.monotonic() > deadline:
                    for process in alive:  # its epoch is run again
                        process.kill()
                if deadline is None:
                    stop.wait(poll_seconds)  # ends early when asked to leave
                else:
                    time.sleep(poll_seconds)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for path in (plan, *phases):
            path.unlink(missing_ok=True)


def _declaring(items: Sequence[GridItem]) -> list[Path]:
    """The files that declare the own parts of a grid's experiments: its workers load them."""
    from audio_cls.experiment import Experiment
    from audio_cls.runs.own_parts import entry_files

    return entry_files(Experiment.parse(item.experiment, item.name) for item in items)


def worker_main(plan: Path, threads: int) -> int:
    """One worker of a grid: claims cells in order until none is left."""
    from audio_cls.core.device import choose_device, tune_process
    from audio_cls.core.loading import load_files
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

    todo = json.loads(plan.read_text(encoding="utf-8"))
    tune_process(threads)
    load_files([Path(f) for f in todo["files"]])
    workspace = Workspace.find()
    with StopRequest(todo["supervisor"], todo["grace_seconds"]) as stop:
        watch = Watch(stop, write_phase())
        runtime = Runtime(workspace, Tracker(workspace), choose_device(todo["device"]), watch=watch)
        for raw in todo["items"]:
            if stop.reason():
                break
            item = GridItem(**raw)
            try:
                state = run_item(item, runtime, parent=todo["parent"], kind=todo["kind"])
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
