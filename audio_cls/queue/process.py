"""The process of one worker: `python -m audio_cls.queue.process NAME INDEX`, started by `supervisor`.

What it is to do comes in an environment variable, as JSON: the options, and a function that says what is worked on. The function
is named `module:function`, since the rooms above this one know what a search or a suite is.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from audio_cls.core.disk import is_disk_full
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import printable
from audio_cls.core.stopping import StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.seam import Objective
from audio_cls.queue.work import Work

if TYPE_CHECKING:
    from audio_cls.runs.preparation import Runtime

__all__ = ["ORDER", "Order", "Session", "WorkTarget", "Worked"]

ORDER = "AUDIO_CLS_WORK"  # environment variable of a worker
USER_ERROR = 2  # the exit code of a worker whose user must mend something


@dataclass(frozen=True)
class WorkTarget:
    """How a worker process gets its work: `function` ("module:name") is called with a `Session` and the arguments, which JSON can
    keep, and returns `Worked`."""

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self) -> Callable[..., Worked]:
        """Import the function."""
        module, _, name = self.function.partition(":")
        found: Callable[..., Worked] = getattr(importlib.import_module(module), name)
        return found


@dataclass(frozen=True)
class Worked:
    """What a worker works on. `finish` is called when it leaves."""

    work: Work
    objective: Objective
    identity: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Session:
    """The process of a worker: where it works, how, and whether it was asked to leave."""

    workspace: Workspace
    options: QueueOptions
    stop: StopRequest

    def runtime(self) -> Runtime:
        """Return what the process keeps from one run to the next; its log is this process's output."""
        from audio_cls.core.device import choose_device, tune_process
        from audio_cls.core.phases import write_phase
        from audio_cls.runs.preparation import Runtime
        from audio_cls.tracking import Tracker

        tune_process(int(os.environ.get("OMP_NUM_THREADS", "1")))
        watch = Watch(self.stop, write_phase())
        return Runtime(self.workspace, Tracker(self.workspace), choose_device(self.options.device), watch=watch)


@dataclass(frozen=True)
class Order:
    """What a worker process is to do; see `supervisor.run_workers` and `worker.Shift`."""

    target: WorkTarget
    total: int
    options: QueueOptions
    supervisor: int
    since: float
    only: tuple[int, ...] | None = None

    def to_json(self) -> str:
        storage = self.options.storage
        options = replace(self.options, storage=None if storage is None else str(storage))
        return json.dumps(asdict(replace(self, options=options)))

    @classmethod
    def from_json(cls, text: str) -> Order:
        from audio_cls.queue.databases import Heartbeat

        raw = json.loads(text)
        options = raw["options"]
        options["heartbeat"] = options["heartbeat"] and Heartbeat(**options["heartbeat"])
        options["gpus"] = None if options["gpus"] is None else tuple(options["gpus"])
        raw |= {"target": WorkTarget(**raw["target"]), "options": QueueOptions(**options)}
        raw["only"] = None if raw["only"] is None else tuple(raw["only"])
        return cls(**raw)


def main() -> int:
    """Work until the total is reached; the exit code. A mistake of the user's is one message in the log."""
    from audio_cls.queue.worker import Shift, run_worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    order = Order.from_json(os.environ.pop(ORDER))
    workspace, options = Workspace.find(), order.options
    try:
        with StopRequest(order.supervisor, options.grace_seconds) as stop:
            given = order.target.resolve()(Session(workspace, options, stop), **order.target.arguments)
            shift = Shift(order.only, order.since, stop=stop)
            report = run_worker(
                given.work, workspace.root, order.total, given.objective, options, identity=given.identity, shift=shift
            )
        given.finish()
    except KeyboardInterrupt:
        return 130
    except (UserError, OSError) as error:
        if not isinstance(error, UserError) and not is_disk_full(error):
            raise
        sys.stderr.write(f"error: {printable(str(error))}\n")
        return USER_ERROR
    logging.info("%s %s %s", report.left, report.reason, report.ended)
    return 0


if __name__ == "__main__":
    sys.exit(main())
