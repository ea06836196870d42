"""The workspace: where things live, locks between processes, files that are never half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import WORKSPACE_VARIABLE, Workspace, atomic_write


def test_paths_lie_below_the_root_and_nothing_is_created(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "new")
    for path in (workspace.mlflow_db, workspace.optuna_db, workspace.artifacts, workspace.corpora):
        assert path.parent == workspace.root
    for path in (workspace.checkpoints, workspace.outbox, workspace.reports):
        assert path.parent == workspace.root
    assert not workspace.root.exists()


def test_find_prefers_what_is_given_then_the_environment_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WORKSPACE_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert Workspace.find().root == tmp_path.resolve()
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path / "named"))
    assert Workspace.find().root == (tmp_path / "named").resolve()
    assert Workspace.find("given").root == (tmp_path / "given").resolve()


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Workspace(tmp_path / "f")


def test_importing_costs_nothing_heavy() -> None:
    code = (
        "import sys, audio_cls.core.workspace; print(sorted({'torch', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


HOLDER = """
import sys, time
from audio_cls.core.workspace import Workspace
with Workspace(sys.argv[1]).lock("x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"'x'.*held by process {holder.pid}"), workspace.lock("x", timeout=0.1):
            pass
        with workspace.lock("y", timeout=0.1):  # another name is another lock
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with workspace.lock("x", timeout=1.0):
            pass
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()


def test_a_lock_excludes_threads_and_is_released_by_an_exception(tmp_path: Path) -> None:
    workspace, inside, most = Workspace(tmp_path), 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(5):
            with workspace.lock("x"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    with pytest.raises(KeyError), workspace.lock("x"):
        raise KeyError
    with workspace.lock("x", timeout=0.1):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "..\n"])
def test_a_lock_is_named_by_a_plain_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError), Workspace(tmp_path).lock(name):
        pass


def test_atomic_write_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    atomic_write(path, "größe")
    assert path.read_bytes() == "größe".encode()
    atomic_write(path, b"second")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"third")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_readers_see_one_version_while_many_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    versions = [bytes([65 + i]) * 50_000 for i in range(4)]
    atomic_write(path, versions[0])

    def write(data: bytes) -> None:
        for _ in range(5):
            atomic_write(path, data)

    threads = [threading.Thread(target=write, args=(v,)) for v in versions]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in versions
    for thread in threads:
        thread.join()
