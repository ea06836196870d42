"""Several workers on one machine: started, watched, replaced when they die, asked to leave on Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.exceptions import StorageInternalError

from audio_cls.core.errors import UserError
from audio_cls.core.interpreter import safe_environment
from audio_cls.core.phases import PHASE_FILE, read_phases
from audio_cls.core.stopping import GRACE_SECONDS, StopRequest
from audio_cls.queue.lease import worker_identity
from audio_cls.queue.progress import Progress
from audio_cls.queue.queue import Queue
from audio_cls.queue.status import StudyStatus, study_status
from audio_cls.queue.storage import Heartbeat, LockBusy, open_storage, open_study
from audio_cls.queue.worker import DATABASE, TOTAL
from audio_cls.study.declaration import Study, load_study_file

__all__ = ["gpu_slots", "log_folder", "run_study"]

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


def run_study(
    study: Study | Path,
    workspace: Path,
    trials: int,
    workers: int,
    worker_command: Sequence[str],
    on_progress: Callable[[StudyStatus], None] | None = None,
    *,
    storage: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    heartbeat: Heartbeat | None = None,
    gpus: Sequence[str] | None = None,
    threads: int | None = None,
    grace_seconds: float = GRACE_SECONDS,
    poll_seconds: float = 1.0,
    environment: Mapping[str, str] | None = None,
    only: Collection[int] | None = None,
) -> StudyStatus:
    """Run a study with `workers` processes until `trials` configurations are finished, or until Ctrl-C.

    `worker_command` starts one worker; in its words `{index}`, `{supervisor}` (this process's id) and `{since}` (seconds since
    the epoch) are filled in. Each worker has a session of its own, a share of the cores in OMP_NUM_THREADS (`threads` unless
    None), a GPU in turn, and a log under `log_folder`. A worker that dies is replaced, and its trial goes on. On Ctrl-C, SIGTERM
    or a closed terminal the workers finish their epoch, checkpoint and leave; one whose epoch takes longer than `grace_seconds`
    leaves it at the next step (its command must say so to it), and `LEAVE_SECONDS` later it is killed. A second Ctrl-C ends them
    at once. Neither costs more than the unfinished epochs. `environment` is added to the workers' own: the place for an
    address with a password, which a command line would show to every user of the machine.

    `on_progress` takes the place of the display. With `only`, the workers are told (by `worker_command`) to run these
    configurations alone; `trials` is then what will be finished in the end, and the study's total stays.

    Raises:
        UserError: when the study cannot be opened, a worker meets a mistake of the user's, or workers keep dying.
    """
    if workers < 1 or trials < 1:
        raise UserError(f"--trials {trials} --workers {workers}: both must be 1 or more")
    declaration = study if isinstance(study, Study) else load_study_file(study)[0]
    opened = open_storage(storage or workspace / DATABASE, heartbeat=heartbeat)
    optuna_study = open_study(declaration, opened, extra=identity)
    if only is None and optuna_study.user_attrs.get(TOTAL) != trials:
        optuna_study.set_user_attr(TOTAL, trials)
    queue = Queue(optuna_study, opened, worker_identity())
    slots = gpu_slots() if gpus is None else list(gpus)
    logs = log_folder(workspace, declaration.name)
    logs.mkdir(parents=True, exist_ok=True)
    command = [
        word.replace("{supervisor}", str(os.getpid())).replace("{since}", repr(time.time())) for word in worker_command
    ]
    share = threads or max(1, len(os.sched_getaffinity(0)) // workers if hasattr(os, "sched_getaffinity") else 1)
    team = [_Worker(i, logs / f"worker-{i}.log") for i in range(workers)]

    def start(worker: _Worker, finished: int) -> None:
        env = safe_environment()
        env["OMP_NUM_THREADS"] = str(share)
        env |= environment or {}
        env[PHASE_FILE] = str(_phase_file(worker))
        if slots:
            env["CUDA_VISIBLE_DEVICES"] = slots[worker.index % len(slots)]
        words = [word.replace("{index}", str(worker.index)) for word in command]
        worker.finished_before, worker.code = finished, None
        with open(worker.log, "ab") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(words)}\n".encode())
            log.flush()
            worker.log_from = log.tell()
            worker.process = subprocess.Popen(
                words, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    status = study_status(optuna_study, trials)
    with StopRequest() as stop, _display(on_progress) as display:
        try:
            enough = len(only) if only is not None else workers if status.waiting else trials - status.finished
            for worker in team[: max(1, enough)]:
                start(worker, status.finished)
            while any(w.runs or w.start_at for w in team):
                if stop.wait(poll_seconds):
                    _dismiss(team, stop, grace_seconds + LEAVE_SECONDS, display.say)
                    break
                for worker in team:
                    _end_if_stalled(worker, opened.heartbeat.grace, display.say)
                try:
                    status = study_status(optuna_study, trials)
                except StorageInternalError:
                    display.say(f"{opened.shown} does not answer; the workers wait for it")
                    continue
                display.update(status, read_phases([_phase_file(w) for w in team if w.runs]))
                for worker in team:
                    _look_after(worker, status, start, display.say)
        except BaseException:
            _end(team, min(grace_seconds, 10.0))
            raise
        finally:
            with contextlib.suppress(
                LockBusy, StorageInternalError
            ):  # those killed give their trials back now, not at the next start
                queue.tidy()
            for worker in team:
                _phase_file(worker).unlink(missing_ok=True)
        status = study_status(optuna_study, trials)
        display.update(status)
    return status


def _phase_file(worker: _Worker) -> Path:
    """Where a worker writes what it is doing."""
    return worker.log.with_suffix(".phase")


def log_folder(workspace: Path, study: str) -> Path:
    """Where the workers of a study write their logs."""
    return workspace / "logs" / study


def gpu_slots() -> list[str]:
    """The CUDA devices that workers may use, one each in turn; found without loading CUDA here."""
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
    """The error that a worker ended with: what follows the last `error:` of its log, else the last lines."""
    with open(worker.log, "rb") as log:
        log.seek(worker.log_from)
        lines = log.read().decode(errors="replace").strip().splitlines()
    marks = [i for i, line in enumerate(lines) if line.lower().startswith(("error:", "error "))]
    tail = lines[marks[-1] :] if marks else lines[-10:]
    return "\n".join(tail)[-4000:].removeprefix("error:").removeprefix("Error:").strip()


@contextlib.contextmanager
def _display(on_progress: Callable[[StudyStatus], None] | None) -> Any:
    if on_progress is None:
        with Progress() as progress:
            yield progress
    else:
        yield _Told(on_progress)


class _Told:
    """A caller's function in the place of the display."""

    def __init__(self, update: Callable[[StudyStatus], None]) -> None:
        self._update = update

    def update(self, status: StudyStatus, phases: str = "") -> None:
        self._update(status)

    def say(self, text: str) -> None:
        """The caller shows what it likes."""
