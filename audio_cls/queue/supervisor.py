"""Several workers on one machine: started, watched, replaced when they die, asked to leave on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.exceptions import StorageInternalError

from audio_cls.core.errors import UserError
from audio_cls.core.interpreter import python_command, safe_environment
from audio_cls.core.notices import QueueProgress, follow_queue
from audio_cls.core.phases import PHASE_FILE, read_phases
from audio_cls.core.stopping import StopRequest
from audio_cls.core.workspace import Workspace
from audio_cls.queue.lease import worker_identity
from audio_cls.queue.options import USUAL, QueueOptions
from audio_cls.queue.places import log_folder
from audio_cls.queue.process import ORDER, Order, WorkTarget
from audio_cls.queue.queue import Queue
from audio_cls.queue.status import StudyStatus, study_status
from audio_cls.queue.storage import TOTAL, LockBusy, open_storage, open_study
from audio_cls.queue.work import Work

__all__ = ["gpu_slots", "run_workers"]

USER_ERROR = 2  # the exit code of a worker whose user must mend something
LEAVE_SECONDS = 15.0  # to leave in, once an epoch was given up
CRASHES = 5  # of one worker in a row, with no configuration finished in between


@dataclass
class _Worker:
    index: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    log_from: int = 0  # where this start's part of the log begins
    crashes: int = 0
    finished_before: int = 0
    start_at: float = 0.0
    code: int | None = None
    stopped_since: float | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


def run_workers(
    work: Work,
    workspace: Workspace,
    total: int,
    target: WorkTarget,
    options: QueueOptions = USUAL,
    *,
    identity: Mapping[str, Any] | None = None,
    only: Collection[int] | None = None,
    on_progress: Callable[[StudyStatus], None] | None = None,
) -> StudyStatus:
    """Work with `options.workers` processes until `total` configurations are finished, or until Ctrl-C.

    Each worker has a session of its own, a share of the cores in OMP_NUM_THREADS, a GPU in turn, and a log under `log_folder`; it
    gets its work from `target`. A worker that dies is replaced, and its trial continues. On Ctrl-C, SIGTERM or a closed terminal the
    workers finish their epoch, checkpoint and leave; one whose epoch takes longer than the grace leaves it at the next step, and
    `LEAVE_SECONDS` later it is killed. A second Ctrl-C ends them at once. Neither costs more than the unfinished epochs.

    `on_progress` takes the place of the display. With `only`, these configurations alone are run; `total` is then what will be
    finished in the end, and the study's total stays.

    Raises:
        UserError: when the study cannot be opened, a worker meets a mistake of the user's, or workers keep dying.
    """
    if options.workers < 1 or total < 1:
        raise UserError(f"{total} configurations, --workers {options.workers}: both must be 1 or more")
    storage = open_storage(options.storage or workspace.optuna_db, heartbeat=options.heartbeat)
    study = open_study(work, storage, extra=identity)
    if only is None and study.user_attrs.get(TOTAL) != total:
        study.set_user_attr(TOTAL, total)
    queue = Queue(study, storage, worker_identity(), drawn=work.drawn)
    logs = log_folder(workspace.root, work.name)
    logs.mkdir(parents=True, exist_ok=True)
    team = [_Worker(i, logs / f"worker-{i}.log") for i in range(options.workers)]
    order = Order(target, total, options, os.getpid(), time.time(), None if only is None else tuple(only))

    def start(worker: _Worker, finished: int) -> None:
        worker.finished_before, worker.code = finished, None
        _start(worker, work.name, order, workspace)

    status = study_status(study, total)
    with StopRequest() as stop, _display(on_progress) as display:
        try:
            for worker in team[: max(1, _enough(work, status, total, only))]:
                start(worker, status.finished)
            while any(w.runs or w.start_at for w in team):
                if stop.wait(options.poll_seconds):
                    _dismiss(team, stop, options.grace_seconds + LEAVE_SECONDS, display.say)
                    break
                for worker in team:
                    _end_if_stalled(worker, storage.heartbeat.grace, display.say)
                try:
                    status = study_status(study, total)
                except StorageInternalError:
                    display.say(f"{storage.shown} does not answer; the workers wait for it")
                    continue
                display.update(status, read_phases([_phase_file(w) for w in team if w.runs]))
                for worker in team:
                    _look_after(worker, status, start, display.say)
        except BaseException:
            _end(team, min(options.grace_seconds, 10.0))
            raise
        finally:
            with contextlib.suppress(
                LockBusy, StorageInternalError
            ):  # those killed give their trials back now, not at the next start
                queue.tidy()
            for worker in team:
                _phase_file(worker).unlink(missing_ok=True)
        status = study_status(study, total)
        display.update(status)
    return status


def _enough(work: Work, status: StudyStatus, total: int, only: Collection[int] | None) -> int:
    """Return how many workers find something to do."""
    if only is not None:
        return len(only)
    if not work.drawn:
        return status.waiting + status.running
    return total if status.waiting else total - status.finished


def _start(worker: _Worker, name: str, order: Order, workspace: Workspace) -> None:
    """Start a worker's process; its log tells where it begins."""
    options = order.options
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = gpu_slots() if options.gpus is None else list(options.gpus)
    environment = {
        **safe_environment(),
        "OMP_NUM_THREADS": str(options.threads or max(1, cores // options.workers)),
        **workspace.environment(),
        ORDER: order.to_json(),  # not on the command line, which every user may read: an address may hold a password
        PHASE_FILE: str(_phase_file(worker)),
    }
    if slots:
        environment["CUDA_VISIBLE_DEVICES"] = slots[worker.index % len(slots)]
    command = python_command("audio_cls.queue.process", name, str(worker.index))
    with open(worker.log, "ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
        log.flush()
        worker.log_from = log.tell()
        worker.process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip


def _phase_file(worker: _Worker) -> Path:
    """Return where a worker writes what it is doing."""
    return worker.log.with_suffix(".phase")


def gpu_slots() -> list[str]:
    """Return the CUDA devices that workers may use, one each in turn; found without loading CUDA here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [v for v in (part.strip() for part in visible.split(",")) if v and v != "-1"]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i, _ in enumerate(cards.iterdir())] if cards.is_dir() else []


def _look_after(
    worker: _Worker, status: StudyStatus, start: Callable[[_Worker, int], None], say: Callable[[str], None]
) -> None:
    """Notice that a worker has ended; replace it when it died."""
    if worker.start_at:
        if time.monotonic() >= worker.start_at:
            worker.start_at = 0.0
            start(worker, status.finished)
        return
    if worker.process is None or worker.runs or worker.code is not None:
        return
    worker.code = worker.process.returncode
    if worker.code == 0:
        return
    if worker.code == USER_ERROR:
        raise UserError(_last_words(worker))
    worker.crashes = 1 if status.finished > worker.finished_before else worker.crashes + 1
    how = f"was ended by {signal.Signals(-worker.code).name}" if worker.code < 0 else f"ended with code {worker.code}"
    if worker.crashes > CRASHES:
        raise UserError(
            f"worker {worker.index} {how} {worker.crashes} times in a row; its log is {worker.log}:\n{_last_words(worker)}"
        )
    pause = 0.0 if worker.crashes == 1 else min(2.0 ** (worker.crashes - 2), 10.0)
    say(f"worker {worker.index} {how}; it is replaced, and its trial goes on (log: {worker.log})")
    worker.start_at = time.monotonic() + pause


def _end_if_stalled(worker: _Worker, grace: float, say: Callable[[str], None]) -> None:
    """End a worker that was stopped (SIGSTOP) for longer than the grace: it has lost its trial, and may hold a lock."""
    stopped = False
    if worker.runs and worker.process:
        with contextlib.suppress(psutil.Error):
            stopped = psutil.Process(worker.process.pid).status() == psutil.STATUS_STOPPED
    if not stopped:
        worker.stopped_since = None
    elif worker.stopped_since is None:
        worker.stopped_since = time.monotonic()
    elif worker.process and time.monotonic() - worker.stopped_since > grace:
        say(f"worker {worker.index} was stopped for more than {grace:g} s: it is ended")
        worker.process.kill()
        worker.process.wait()
        worker.stopped_since = None


def _dismiss(team: Sequence[_Worker], stop: StopRequest, grace_seconds: float, say: Callable[[str], None]) -> None:
    """Ask all to leave, and wait for them; a second Ctrl-C, or the end of the grace, kills those that stay."""
    say(
        f"{stop.reason()}: the workers finish their epoch and leave (at most {grace_seconds:g} s; Ctrl-C again ends them at once)"
    )
    try:
        _end(team, grace_seconds)
    except KeyboardInterrupt:
        say("ended at once: unfinished epochs will be run again")
        _end(team, 0.0)


def _end(team: Sequence[_Worker], grace_seconds: float) -> None:
    deadline = time.monotonic() + grace_seconds
    for worker in team:
        worker.start_at = 0.0
        if worker.runs and worker.process:
            worker.process.send_signal(signal.SIGTERM)
    while any(w.runs for w in team) and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in team:
        if worker.process:
            if worker.runs:
                worker.process.kill()
            worker.process.wait()


def _last_words(worker: _Worker) -> str:
    """Return the error that a worker ended with: what follows the last `error:` of its log, else the last lines."""
    with open(worker.log, "rb") as log:
        log.seek(worker.log_from)
        lines = log.read().decode(errors="replace").strip().splitlines()
    marks = [i for i, line in enumerate(lines) if line.lower().startswith(("error:", "error "))]
    tail = lines[marks[-1] :] if marks else lines[-10:]
    return "\n".join(tail)[-4000:].removeprefix("error:").removeprefix("Error:").strip()


def _display(on_progress: Callable[[StudyStatus], None] | None) -> AbstractContextManager[QueueProgress]:
    return follow_queue() if on_progress is None else contextlib.nullcontext(_CallbackDisplay(on_progress))


class _CallbackDisplay:
    """Passes each status to a caller's function."""

    def __init__(self, update: Callable[[StudyStatus], None]) -> None:
        self._update = update

    def update(self, status: StudyStatus, phases: str = "") -> None:
        self._update(status)

    def say(self, text: str) -> None:
        """The caller shows what it likes."""
