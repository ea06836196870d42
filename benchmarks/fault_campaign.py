"""Several studies and suites of trained networks under hundreds of faults, on SQLite and PostgreSQL; then everything is counted.

    python benchmarks/faults.py --campaign --faults 208          # about ten minutes on two cores

Four searches: Optuna on SQLite or PostgreSQL, MLflow in the workspace or on an HTTP server. Two suites of 3 arms x 2 seeds x 3 folds: all
local, and all on servers; their curves must equal, bit for bit, those of a suite that was left alone. Each runs the real objective in
three worker processes, which are forked from this one (a worker that is replaced costs no start-up, so that the faults can come fast)
and replaced when they end. A study that finishes before its faults are spent is asked for more configurations, or for another seed of a suite, as a user would.

Faults: `kill` all workers at once with SIGKILL; `kill-worker` one; `moment` one at an exact point of its work (POINTS); `term` and
`interrupt` ask one to leave; `stop` halts one with SIGSTOP for less than the grace period of its heartbeat, `stall` for longer, so that
its trial is given away and it must notice; `disk` lets no file be written for a while; `tracking` kills the MLflow server and
starts it again; `database` does so with PostgreSQL. Drawn from `--seed`; only processes that were started here are signalled.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fault_suite import EACH, FIRST, NAME, open_suite, suite_curves, undisturbed
from tests.servers import Missing, MLflowServer, PostgreSQL, mlflow_server, postgresql

FORK = multiprocessing.get_context("fork")
WORKERS = 3
HEARTBEAT = (1, 3)  # seconds: interval, grace
POINTS = (
    "before a checkpoint is written", "before a file is put in its place", "after a file was put in its place", "after a checkpoint",
    "before an epoch is logged", "after an epoch was logged", "before an epoch is reported", "after an epoch was reported",
    "before a trial is taken", "after a trial was taken", "before a trial is queued again", "after a trial was queued again",
    "before a trial is told", "after a trial was told", "before its run is finished", "after its run was finished", "before an artifact",
    "before its figures are recorded", "after its figures were recorded",
)  # fmt: skip
KINDS = {"kill": 2, "kill-worker": 4, "moment": 9, "term": 3, "interrupt": 2, "stop": 3, "stall": 3, "disk": 3}
FEATURES: Any = None  # packed by `warm_up`, inherited by the workers
WRONG = ("lost", "run twice", "holes or duplicates", "unreadable", "left over", "other")


@dataclass
class Shared:
    """What this process tells its workers: at which point one is to die (1 + its place in POINTS), and until when the disk is full."""

    moment: Any = field(default_factory=lambda: FORK.RawValue("i", 0))
    full_until: Any = field(default_factory=lambda: FORK.RawValue("d", 0.0))


@dataclass
class Site:
    """Where one study of the campaign lives."""

    name: str
    workspace: Path
    storage: str
    database: PostgreSQL | None
    mlflow: MLflowServer | None
    suite: bool = False
    expected: dict[str, Any] = field(default_factory=dict)  # of a suite: the curves of its first cells, undisturbed
    shared: Shared = field(default_factory=Shared)

    @property
    def study(self) -> str:
        return NAME if self.suite else "faults"

    @property
    def tracking(self) -> str | None:
        return self.mlflow.address if self.mlflow else None


# -- a worker -----------------------------------------------------------------------------------------------------------


def arm(shared: Shared) -> None:
    """Make this process die at the point that it is told, and meet a full disk."""
    import optuna

    from audio_cls.queue.queue import Queue
    from audio_cls.tracking import Run
    from audio_cls.training import checkpoint

    def strike(point: str | None) -> None:
        if point is not None and shared.moment.value == POINTS.index(point) + 1:
            shared.moment.value = 0
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str, before: str | None, after: str | None) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            strike(before)
            out = inner(*args, **kwargs)
            strike(after)
            return out

        setattr(owner, name, call)

    wrap(checkpoint, "write", POINTS[0], None)
    wrap(os, "replace", POINTS[1], POINTS[2])
    wrap(checkpoint.CheckpointStore, "save", None, POINTS[3])
    wrap(Run, "epoch", POINTS[4], POINTS[5])
    wrap(optuna.trial.Trial, "report", POINTS[6], POINTS[7])
    wrap(optuna.Study, "ask", POINTS[8], POINTS[9])
    wrap(Queue, "_take", POINTS[8], POINTS[9])
    wrap(Queue, "_copy", POINTS[10], POINTS[11])
    wrap(optuna.Study, "tell", POINTS[12], POINTS[13])
    wrap(Run, "finish", POINTS[14], POINTS[15])
    wrap(Run, "artifact_text", POINTS[16], None)
    wrap(Run, "final", POINTS[17], POINTS[18])
    fsync = os.fsync

    def sync(fd: int) -> None:
        if time.time() < shared.full_until.value:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    os.fsync = sync


def work(site: Site, total: int, log: Path) -> None:
    """One worker, in a process of its own: exit code 0 when the total is reached or it was asked to leave, 4 on a full disk."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s", force=True)
    import torch

    from audio_cls.core.disk import DiskFull
    from audio_cls.core.workspace import Workspace
    from audio_cls.queue.options import QueueOptions
    from audio_cls.queue.storage import Heartbeat, patiently
    from audio_cls.queue.worker import Shift, run_worker
    from audio_cls.runs.preparation import Runtime
    from audio_cls.study.declaration import load_study_file
    from audio_cls.study.search import study_identity, trial_objective
    from audio_cls.tracking import Tracker

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    arm(site.shared)
    workspace = Workspace(site.workspace, site.tracking)
    file = site.workspace / "study.py"
    declared, _ = load_study_file(file)
    runtime = Runtime(workspace, Tracker(workspace, retry_seconds=1.0), torch.device("cpu"), disk_wait_seconds=0.2)
    runtime.features = FEATURES or runtime.features
    identity = {} if site.suite else study_identity(runtime.corpus(declared.base.data))
    try:
        chosen: tuple[Any, Any] = declared, trial_objective(runtime, declared, None, file)
        if site.suite:
            chosen = patiently(lambda: open_suite(runtime, declared.base, site.storage, total))
        run_worker(
            chosen[0], workspace.root, total, chosen[1],
            QueueOptions(site.storage, heartbeat=Heartbeat(*HEARTBEAT), poll_seconds=0.1, max_deaths=1000, grace_seconds=5.0),
            identity=identity, shift=Shift(supervisor=os.getppid()),
        )  # fmt: skip
        runtime.tracker.flush()
    except DiskFull as error:
        print(error, flush=True)
        os._exit(4)
    os._exit(0)


# -- faults -------------------------------------------------------------------------------------------------------------


class Team:
    """The workers of one study, replaced when they end."""

    def __init__(self, site: Site, total: int) -> None:
        self.site, self.total = site, total
        self.processes: list[Any] = []
        self.finished = 0

    def fill(self) -> None:
        for process in [p for p in self.processes if not p.is_alive()]:
            process.join()
            self.processes.remove(process)
        while len(self.processes) < WORKERS:
            process = FORK.Process(target=work, args=(self.site, self.total, self.site.workspace / "workers.log"))
            process.start()
            self.processes.append(process)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def inflict(kind: str, team: Team, rng: random.Random) -> bool:
    """One fault; False where it did not come about."""
    site, alive = team.site, [p for p in team.processes if p.is_alive()]
    if not alive:
        return False
    victim = rng.choice(alive)
    if kind == "kill":
        for process in alive:
            process.kill()
    elif kind == "kill-worker":
        victim.kill()
    elif kind in ("term", "interrupt"):
        os.kill(victim.pid, signal.SIGTERM if kind == "term" else signal.SIGINT)
        victim.join(15)
    elif kind in ("stop", "stall"):
        os.kill(victim.pid, signal.SIGSTOP)
        seconds = rng.uniform(0.2, 1.0) if kind == "stop" else HEARTBEAT[1] + rng.uniform(1.5, 3.0)
        time.sleep(seconds)
        os.kill(victim.pid, signal.SIGCONT)
    elif kind == "moment":
        site.shared.moment.value = rng.randrange(len(POINTS)) + 1
        deadline = time.monotonic() + 6
        while site.shared.moment.value and time.monotonic() < deadline:
            time.sleep(0.05)
            team.fill()
        if site.shared.moment.value:
            site.shared.moment.value = 0
            return False
    elif kind == "disk":
        site.shared.full_until.value = time.time() + rng.uniform(0.2, 1.5)
        time.sleep(max(0.0, site.shared.full_until.value - time.time()))
    elif kind == "tracking":
        assert site.mlflow is not None
        site.mlflow.kill()
        time.sleep(rng.uniform(0.5, 3.0))
        site.mlflow.start()
    elif kind == "database":
        assert site.database is not None
        site.database.crash()
        time.sleep(rng.uniform(0.2, 1.5))
        site.database.start()
    return True


def attack(site: Site, faults: int, rng: random.Random, longest: float) -> tuple[Counter[str], int]:
    """Run a study through its faults; how many of each kind, and the configurations asked for at the end."""
    kinds = dict(KINDS)
    rare = [*(["tracking"] * 2 if site.mlflow else []), *(["database"] * 3 if site.database else [])]
    plan = rng.choices(list(kinds), list(kinds.values()), k=faults - len(rare)) + rare
    rng.shuffle(plan)
    done: Counter[str] = Counter()
    team = Team(site, FIRST if site.suite else 6)
    deadline = time.monotonic() + longest
    try:
        while plan:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"{site.name}: {len(plan)} faults were not inflicted in {longest:g} s; see {site.workspace / 'workers.log'}"
                )
            if any(p.exitcode == 0 for p in team.processes) and finished(site) >= team.total:
                team.total += EACH if site.suite else 4
            team.fill()
            time.sleep(rng.uniform(0.1, 0.9))
            kind = plan[-1]
            if inflict(kind, team, rng):
                done[kind] += 1
                plan.pop()
            else:
                plan.insert(0, plan.pop())
        while finished(site) < team.total:
            if time.monotonic() > deadline:
                raise SystemExit(f"{site.name}: not finished in {longest:g} s; see {site.workspace / 'workers.log'}")
            team.fill()
            time.sleep(0.5)
        for process in team.processes:
            process.join(60)
        # A last worker finds nothing to do, and sends what earlier ones kept for the tracking server.
        last = FORK.Process(target=work, args=(site, team.total, site.workspace / "workers.log"))
        last.start()
        last.join(120)
    finally:
        team.end()
    return done, team.total


# -- counting -------------------------------------------------------------------------------------------------------------


def aside(function: Callable[..., Any], *args: Any) -> Any:
    """Call in a process of its own: no connection made here is inherited by the workers forked later."""
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: send.send(function(*args)))
    process.start()
    send.close()
    answer = receive.recv()
    process.join()
    return answer


def finished(site: Site) -> int:
    return int(aside(_finished, site.storage, site.study))


def _finished(storage: str, name: str) -> int:
    from audio_cls.queue.queue import Tally
    from audio_cls.queue.storage import load_study, open_storage, study_names

    opened = open_storage(storage)
    if name not in study_names(opened, None):
        return 0
    return len(Tally.of(load_study(name, opened).get_trials(deepcopy=False)).finished)


def audit(site: Site, asked: int) -> dict[str, list[str]]:
    """All that is wrong with a study and its runs; made in a process of its own."""
    from audio_cls.core.workspace import Workspace
    from audio_cls.data.corpus import Corpus
    from audio_cls.experiment import Experiment
    from audio_cls.queue.queue import Tally
    from audio_cls.queue.record import is_finished
    from audio_cls.queue.storage import load_study, open_storage
    from audio_cls.queue.tracked import settle_runs
    from audio_cls.runs.preparation import mlflow_experiment
    from audio_cls.tracking import Tracker
    from audio_cls.tracking.run import FIGURES
    from audio_cls.training.checkpoint import read

    wrong: dict[str, list[str]] = {what: [] for what in WRONG}
    kind = "cell" if site.suite else "trial"
    if site.suite:
        quiet, shot = site.expected, suite_curves(site.storage)
        wrong["other"] += [f"cell {k}: {shot[k]} instead of {quiet[k]}" for k in quiet if shot.get(k) != quiet[k]]
        wrong["lost"] += [f"cell {k}" for k in quiet if k not in shot]
    study = load_study(site.study, open_storage(site.storage))
    trials = study.get_trials(deepcopy=False)
    latest = Tally.of(trials).latest
    ends = Counter(int(t.user_attrs["config"]) for t in trials if "config" in t.user_attrs and is_finished(t))
    wrong["lost"] += [f"configuration {k}" for k in range(asked) if not ends[k]]
    wrong["run twice"] += [f"configuration {k}: finished {n} times" for k, n in ends.items() if n > 1]
    wrong["left over"] += [f"trial {t.number} is {t.state.name}" for t in trials if not t.state.is_finished()]
    params = Counter(json.dumps(t.params, sort_keys=True) for t in latest.values())
    wrong["run twice"] += [f"{n} configurations are {p}" for p, n in params.items() if n > 1]
    tracker = Tracker(Workspace(site.workspace, site.tracking))
    tracker.flush()
    settle_runs(
        tracker, mlflow_experiment(Corpus.open(site.workspace / "corpora" / "faults")), study, kind
    )  # as `study run` does at its end
    if tracker.pending():
        wrong["left over"].append(f"{tracker.pending()} runs are not wholly sent")
    runs = {r.run_id: r for r in tracker.runs() if r.tags.get("kind") == kind}
    names = Counter(r.tags.get("config", "") for r in runs.values())
    wrong["run twice"] += [f"configuration {k}: {n} runs in MLflow" for k, n in names.items() if n > 1]
    by_local = {r.tags.get("local_uid", ""): r for r in runs.values()}
    for k, trial in sorted(latest.items()):
        reference = str(trial.user_attrs.get("mlflow_run_id", ""))
        run = runs.get(reference) or by_local.get(reference)
        if run is None:
            wrong["lost"].append(f"configuration {k}: no run in MLflow ({reference})")
            continue
        steps = sorted(trial.intermediate_values)
        if steps != list(range(len(steps))):
            wrong["holes or duplicates"].append(f"configuration {k}: Optuna has the steps {steps}")
        for key in ("val/macro_f1", "train/loss"):
            logged = [step for step, _ in tracker.curve(run.run_id, key)]
            if logged != steps:
                wrong["holes or duplicates"].append(f"configuration {k}: {key} in MLflow {logged}, Optuna {steps}")
        wrong["holes or duplicates"] += [
            f"configuration {k}: {key} is recorded {len(points)} times"
            for key in run.metrics
            if key.startswith(FIGURES) and len(points := tracker.curve(run.run_id, key)) != 1
        ]
        told = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED"}.get(trial.state.name)
        if run.state != told or trial.state.name == "FAIL":
            wrong["other"].append(
                f"configuration {k}: Optuna {trial.state.name}, MLflow {run.state} ({trial.user_attrs.get('reason')})"
            )
        try:
            folder = site.workspace / "read"
            Experiment.from_json(tracker.download(run.run_id, "experiment.json", folder).read_text())
            if trial.state.name == "COMPLETE":
                best = read(tracker.download(run.run_id, "weights/best.safetensors", folder))
                if best.state["epoch"] != int(run.metrics["best/epoch"]):
                    wrong["other"].append(
                        f"configuration {k}: weights of epoch {best.state['epoch']}, best is {run.metrics['best/epoch']}"
                    )
                for name in ("predictions.csv", "report.html"):
                    if tracker.download(run.run_id, name, folder).stat().st_size < 100:
                        wrong["unreadable"].append(f"configuration {k}: {name} is cut short")
            shutil.rmtree(folder)
        except Exception as error:
            wrong["unreadable"].append(f"configuration {k}: {error}")
    return wrong


def warm_up(workspace: Path) -> None:
    """Train one run here, so that workers, which are forked from this process, have everything imported and the features packed."""
    global FEATURES
    import torch

    from audio_cls.core.workspace import Workspace
    from audio_cls.runs.objective import Record, run_experiment
    from audio_cls.runs.preparation import Runtime
    from audio_cls.study.declaration import load_study_file
    from audio_cls.tracking import Tracker
    from audio_cls.training.checkpoint import CheckpointStore

    torch.set_num_threads(1)
    place = Workspace(workspace)
    runtime = Runtime(place, Tracker(place), torch.device("cpu"))
    base: Any = load_study_file(workspace / "study.py")[0].base
    outcome = run_experiment(base, runtime, Record("warm up"), CheckpointStore(workspace / "warm"))
    assert outcome.state == "COMPLETE", outcome
    FEATURES = runtime.features


def _base(workspace: Path) -> Any:
    from audio_cls.study.declaration import load_study_file

    return load_study_file(workspace / "study.py")[0].base


def campaign(root: Path, faults: int, seed: int, longest: float, make: Callable[[Path], Path], word: str = "") -> int:
    """All studies and suites; prints the table and returns how much is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers are ended with us
    rng = random.Random(seed)
    began = time.monotonic()
    inflicted: dict[str, Counter[str]] = {}
    rows: list[list[Any]] = []
    details: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            server: PostgreSQL | None = stack.enter_context(postgresql())
        except Missing as error:
            server = None
            print(f"SQLite only: {error}")
        stores = ["sqlite", "postgresql"] if server else ["sqlite"]
        plain = make(root / "template")
        warm_up(shutil.copytree(plain, root / "warm"))
        quiet = shutil.copytree(plain, root / "quiet")
        expected = aside(lambda: undisturbed(quiet, _base(quiet), FEATURES, FIRST))
        print(f"  the undisturbed suite: {len(expected)} cells, {time.monotonic() - began:.0f} s", flush=True)
        sites = [(s, h, False) for s in stores for h in (False, True)]
        sites += [("sqlite", False, True), (stores[-1], True, True)]
        names = {
            s: f"{'suite, ' if s[2] else ''}{s[0]}, MLflow {'over HTTP' if s[1] else 'in the workspace'}" for s in sites
        }
        sites = [s for s in sites if word in names[s]]
        for number, (store, http, suite) in enumerate(sites):
            name = names[store, http, suite]
            workspace = root / f"{store}-{'http' if http else 'local'}{'-suite' if suite else ''}"
            shutil.copytree(plain, workspace)
            storage = (
                server.create(f"campaign{number}")
                if server and store == "postgresql"
                else f"sqlite:///{workspace}/optuna.db"
            )
            with contextlib.ExitStack() as inner:
                mlflow = inner.enter_context(mlflow_server(workspace / "server")) if http else None
                site = Site(
                    name, workspace, storage, server if store == "postgresql" else None, mlflow, suite, expected
                )
                share = faults // len(sites) + (number < faults % len(sites))
                inflicted[name], asked = attack(site, share, rng, longest)
                wrong = aside(audit, site, asked)
            rows.append(
                [
                    name,
                    sum(inflicted[name].values()),
                    asked,
                    asked - len(wrong["lost"]),
                    *(len(wrong[k]) for k in WRONG),
                ]
            )
            for text in (f"{name}: {kind}: {line}" for kind, lines in wrong.items() for line in lines):
                details.append(text)
                print(f"  {text}", flush=True)
            print(
                f"  {name}: {rows[-1][1]} faults, {asked} configurations, {len(details)} wrong so far, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    kinds = sorted({kind for counts in inflicted.values() for kind in counts})
    print(f"\n{sum(r[1] for r in rows)} faults, seed {seed}, {time.monotonic() - began:.0f} s\n")
    show(["faults", *kinds, "all"], [[n, *(c[k] for k in kinds), sum(c.values())] for n, c in inflicted.items()])
    show(["study", "faults", "asked", "finished", *WRONG], rows)
    for line in details:
        print(f"  {line}")
    return len(details)


def show(columns: list[str], rows: list[list[Any]]) -> None:
    """A table in Markdown, its sums below."""
    sums = ["all", *(sum(row[i] for row in rows) for i in range(1, len(columns)))]
    lines = [columns, *rows, sums]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(columns))]
    for number, line in enumerate(lines):
        cells = [
            str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("| " + " | ".join(cells) + " |")
        if number == 0:
            print("|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|")
    print()
