"""Who runs a trial, whether they live, and whether it is still theirs."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
from pathlib import Path

import optuna
import psutil
from optuna.trial import TrialState

from audio_cls.queue.storage import StudyStorage

__all__ = ["Lease", "is_dead", "worker_identity"]


def worker_identity() -> str:
    """`host|boot|pid|start`: this process, distinguished from any other, before or after a reboot, in this container or another."""
    return f"{_host()}|{_boot()}|{os.getpid()}|{_start(os.getpid())}"


def is_dead(identity: str) -> bool | None:
    """Whether the process of an identity is gone; None if that cannot be known from here (another machine or container)."""
    parts = identity.split("|")
    if len(parts) != 4 or parts[0] != _host():
        return None
    _, boot, pid, start = parts
    if boot != _boot():
        return None if "?" in (boot, _boot()) else True
    try:
        return _start(int(pid)) != start
    except ValueError:
        return None


@functools.cache
def _host() -> str:
    """Return host name, machine id and process namespace: equal names alone do not make one machine."""
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()[:12]
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return ":".join((socket.gethostname().replace("|", "_"), machine, space))


@functools.cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, psutil.Error):
        return str(int(psutil.boot_time()) // 60)
    return "?"


def _start(pid: int) -> str:
    """When a process started, as the kernel counts it; `gone` when it has ended, though its parent may not have noticed."""
    try:
        # The command's name stands in parentheses and may hold anything; state and start are the 3rd and 22nd fields.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "gone" if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    try:
        process = psutil.Process(pid)
        return "gone" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return "gone"


class Lease:
    """Keeps a running trial ours: beats in a thread of its own, and knows when the trial was given to another worker.

    A worker that was stopped for longer than the grace period (SIGSTOP, a suspended laptop, a stalled disk) finds its trial
    failed and queued again. It must then neither report nor write where its successor writes.
    """

    def __init__(self, study: optuna.Study, storage: StudyStorage, trial_id: int) -> None:
        self._study = study
        self._storage = storage
        self._trial_id = trial_id
        self._lost = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{trial_id}", daemon=True)

    def __enter__(self) -> Lease:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=5.0)

    @property
    def lost(self) -> bool:
        """Whether the trial is known to be no longer ours."""
        return self._lost.is_set()

    def give_up(self) -> None:
        """The storage said that the trial has ended."""
        self._lost.set()

    def check(self) -> bool:
        """Ask the storage; True while the trial is ours. An unreachable storage changes nothing."""
        if not self.lost:
            with contextlib.suppress(Exception):
                if self._study._storage.get_trial(self._trial_id).state != TrialState.RUNNING:
                    self._lost.set()
        return not self.lost

    def _beat(self) -> None:
        # A locked or absent database must not kill the thread: the next beat comes before the grace period ends.
        with contextlib.suppress(Exception):
            if self.check():
                self._storage.backend.record_heartbeat(self._trial_id)

    def _run(self) -> None:
        due = time.monotonic()
        while not self.lost:
            due = max(due + self._storage.heartbeat.interval, time.monotonic())
            if self._done.wait(due - time.monotonic()):
                return
            self._beat()
