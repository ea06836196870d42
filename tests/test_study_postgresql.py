"""The same studies on a real PostgreSQL server, started here; skipped where there is none."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audio_cls.study.storage import Heartbeat, LockBusy, load_study, open_storage, open_study
from audio_cls.study.worker import run_worker
from tests.study_fakes import FakeObjective, declare, outcomes

pytestmark = pytest.mark.slow
FORK = multiprocessing.get_context("fork")


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that listens on a socket of its own; `{}` in it is the database's name."""
    pytest.importorskip("psycopg")
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL here: its initdb is not on the path nor under /usr/lib/postgresql")
    user = pwd.getpwuid(os.getuid()).pw_name
    who: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if os.getuid() == 0:  # the server refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user, who = "postgres", {"user": account.pw_uid, "group": account.pw_gid, "cwd": "/"}
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, **who}
    subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "--no-sync"], **quiet)
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
    subprocess.run([programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start"], **quiet)
    try:
        yield f"postgresql://{user}@/{{}}?host={folder}"
    finally:
        subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A fresh database."""
    import psycopg

    name = f"t{abs(hash(request.node.name)) % 10**8}"
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return server.format(name)


def _process(work: Any, *args: Any) -> Any:
    process = FORK.Process(target=work, args=args)
    process.start()
    return process


def _work(url: str, folder: Path, total: int, seconds: float) -> None:
    run_worker(
        declare(), folder, total, FakeObjective(folder / "runs", seconds), storage=url, poll_seconds=0.05, max_deaths=99
    )


def _open(url: str) -> None:
    open_study(declare(), open_storage(url))


def test_many_processes_open_a_fresh_database_together(url: str) -> None:
    team = [_process(_open, url) for _ in range(6)]
    for process in team:
        process.join(60)
    assert [p.exitcode for p in team] == [0] * 6


def test_one_worker_killed_now_and_then_gives_the_study_that_sqlite_gives_undisturbed(url: str, tmp_path: Path) -> None:
    run_worker(declare(), tmp_path, 8, FakeObjective(tmp_path / "plain"))
    for _ in range(5):
        process = _process(_work, url, tmp_path, 8, 0.02)
        process.join(0.7)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    _work(url, tmp_path, 8, 0.0)
    study = load_study("toy", open_storage(url))
    assert outcomes(study) == outcomes(load_study("toy", open_storage(tmp_path / "optuna.db")))
    assert all(t.state.is_finished() for t in study.trials)


def test_several_workers_run_nothing_twice(url: str, tmp_path: Path) -> None:
    team = [_process(_work, url, tmp_path, 16, 0.01) for _ in range(4)]
    time.sleep(1.2)
    os.kill(team[0].pid, signal.SIGKILL)
    for process in team:
        process.join(90)
    assert [p.exitcode for p in team[1:]] == [0] * 3
    study = load_study("toy", open_storage(url))
    assert sorted(outcomes(study)) == list(range(16))
    assert all(t.state.is_finished() for t in study.trials)
    assert set(Counter(t.user_attrs["config"] for t in study.trials if t.state.name != "FAIL").values()) == {1}
    trained = Counter(tuple(line.split()[::2]) for line in (tmp_path / "runs/epochs.log").read_text().splitlines())
    assert sum(trained.values()) - len(trained) <= 1


def _hold(url: str, held: Any) -> None:
    with open_storage(url).lock("toy"):
        held.set()
        time.sleep(60)


def test_a_lock_goes_with_its_holder(url: str) -> None:
    storage = open_storage(url, heartbeat=Heartbeat(1, 4))
    held = FORK.Event()
    holder = _process(_hold, url, held)
    assert held.wait(30)
    with pytest.raises(LockBusy), storage.lock("toy", timeout=0.2):
        pass
    with storage.lock("another study", timeout=0.2):
        pass
    holder.kill()
    holder.join()
    with storage.lock("toy", timeout=10.0):
        pass
