"""How a queue is worked: where its studies are kept, how many workers there are, and how patient they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audio_cls.core.stopping import GRACE_SECONDS
from audio_cls.queue.databases import Heartbeat
from audio_cls.runs.model_log import LogModel

__all__ = ["USUAL", "QueueOptions"]


@dataclass(frozen=True)
class QueueOptions:
    """Options of the process that starts workers, and of the workers.

    Attributes:
        storage: where the studies are kept; `optuna.db` in the workspace unless given.
        workers: number of processes.
        device: of PyTorch, or `auto`.
        grace_seconds: how long an epoch may continue once the process was asked to leave.
        heartbeat: how often workers show life; the usual unless given.
        poll_seconds: between two looks at the queue.
        threads: of each worker; an equal share of the cores unless given.
        gpus: the CUDA devices to share out; all that are visible unless given.
        max_deaths: a configuration whose workers died so often in a row, without a new epoch, has failed.
        same_failures: a search whose first trials, so many, all fail in the same way is stopped.
        log_model: which complete runs become models in MLflow: the best of a search and each single run, all, or none.
        foreign_hours: after which a running trial of another program, without heartbeat, is given up.
    """

    storage: str | Path | None = None
    workers: int = 1
    device: str = "auto"
    grace_seconds: float = GRACE_SECONDS
    heartbeat: Heartbeat | None = None
    poll_seconds: float = 1.0
    threads: int | None = None
    gpus: tuple[str, ...] | None = None
    max_deaths: int = 6
    same_failures: int = 5
    log_model: LogModel = "best"
    foreign_hours: float = 24.0


USUAL = QueueOptions()
