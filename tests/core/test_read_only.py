"""A workspace that cannot be written to, as on a share mounted read-only: what reads works, what writes is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from audio_cls.ablation.declaration import load_ablation
from audio_cls.ablation.running import start_suite
from audio_cls.ablation.suite import open_suite
from audio_cls.core.errors import UserError
from audio_cls.core.snapshots import is_writable, readable_copy
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.storage import open_storage
from audio_cls.tracking import Tracker
from tests.study_tones import Place

COMMANDS = """
import contextlib, io, json, sys, traceback
from audio_cls.cli import main
found = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main(words)
        except BaseException:
            code = traceback.format_exc()
    found.append([code, out.getvalue()])
print(json.dumps(found))
"""
ABLATION = """
from audio_cls.ablation.declaration import Ablation
from audio_cls.experiment import Experiment

BASE = Experiment.parse({
    "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 0.5, "split": {"kind": "folds"}},
    "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 256, "n_mels": 16},
    "training": {"epochs": 1, "batch_size": 12, "precision": "fp32"},
})
ABLATION = Ablation("rates", base=BASE, reference="low", arms={"low": {}, "high": {"optimizer.lr": 0.01}}, seeds=range(2), folds=(1, 2))
"""


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def in_read_only(workspace: Path, commands: list[list[str]], cwd: Path) -> list[tuple[int, str]]:
    """Run commands in one process that cannot write to the workspace: exit code and output of each."""
    words = json.dumps([["--workspace", str(workspace), *c] for c in commands])
    line = [sys.executable, "-c", COMMANDS, words]
    env = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    if os.getuid() == 0:  # permissions do not bind root: a mount of our own that only this process sees
        mount = f'mount --bind -o ro "{workspace}" "{workspace}" && cd "{cwd}" && exec "$@"'
        probe = ["unshare", "-m", "sh", "-c", mount.replace('exec "$@"', "true"), "sh"]
        if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
            pytest.skip("running as root, and nothing can be mounted here")
        line = ["unshare", "-m", "sh", "-c", mount, "sh", *line]
    modes = {p: p.stat().st_mode for p in [workspace, *workspace.rglob("*")]}
    try:
        if os.getuid() != 0:
            for path, mode in modes.items():
                path.chmod(mode & ~0o222)
        done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=cwd, timeout=280)
    finally:
        if os.getuid() != 0:
            for path, mode in modes.items():
                path.chmod(mode)
    assert done.returncode == 0, done.stderr
    return [(code, out) for code, out in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a complete trial and a pruned one, and a suite of two arms that has only begun."""
    place = Place(tmp_path_factory.mktemp("share") / "w", tones_corpus, epochs=2)
    place.enqueue(1e-2, 1e-6)
    place.run(2)
    file = place.workspace.root / "rates.py"
    file.write_text(ABLATION)
    suite = open_suite(load_ablation(file), Tracker(place.workspace), QueueOptions(device="cpu"), file)
    start_suite(replace(suite, storage=open_storage(place.workspace.optuna_db)))
    return place.workspace.root


@pytest.mark.slow
def test_every_reading_command_works_on_a_read_only_share(workspace: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    import numpy as np
    import soundfile as sf

    sf.write(clip, np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    # A worker on another machine that goes on: its log lies beside the database.
    writer = Place(workspace, None)
    study = writer.study()
    study.set_user_attr("written", "into the log")
    assert (workspace / "optuna.db-wal").stat().st_size
    before = tree(workspace)
    page = str(tmp_path / "page.html")
    reading = {
        "study status": "tones",
        "study status tones": "1 complete, 1 pruned",
        "study best tones": "lr",
        "ablate list": "rates",
        "ablate status rates": "configurations finished",
        f"ablate plan {workspace / 'rates.py'}": "8 runs, 8 epochs left to train",
        "ablate report rates": "no page: the workspace is read-only",
        f"report tones --html {page}": "not logged to MLflow",
        "data describe tones": "30",
        "data verify tones": "every clip matches",
        "keys optimizer": "optimizer.lr",
        f"predict tones,000 {clip}": "clip.wav: ",
        "evaluate tones,000": "nothing was recorded: the workspace is read-only",
        "compare tones,000 tones,001": "optimizer.lr",
        f"study export tones {tmp_path / 'tones.tar'}": "2 trials",
    }
    writing = {
        "train": "`audio-cls train` writes there",
        "study run tones --trials 5": "`audio-cls study run` writes there",
        f"data prepare {tmp_path} --name new": "`audio-cls data prepare` writes there",
        f"ablate run {workspace / 'rates.py'}": "`audio-cls ablate run` writes there",
        "study revive tones": "`audio-cls study revive` writes there",
        "study confirm tones": "`audio-cls study confirm` writes there",
        f"study import {tmp_path / 'tones.tar'}": "`audio-cls study import` writes there",
        "evaluate --test tones,000": "`audio-cls evaluate` writes there",
        "report tones": "name another place with --html FILE",
        "data show tones audio/hum0.wav": "name another place with --html FILE",
    }
    both = {**reading, **writing}
    words = [[w.replace(",", " ") for w in line.split()] for line in both]
    found = in_read_only(workspace, words, cwd=workspace)
    for (line, expected), (code, out) in zip(both.items(), found, strict=True):
        assert code == (0 if line in reading else 2), f"{line}: {code}\n{out}"
        assert expected in out, f"{line}:\n{out}"
        if line in writing:
            assert out.count("\n") == 1, out
    assert tree(workspace) == before
    del study


def test_every_command_says_whether_it_writes() -> None:
    """A new command that writes to the workspace belongs into `WRITING`."""
    import click

    from audio_cls.cli.app import cli
    from audio_cls.cli.options import WRITING

    reading = {
        "keys", "doctor", "predict", "listen", "demo", "export", "models", "evaluate", "compare", "report", "ui",
        "data generate", "data get", "data mix", "data convert", "data describe", "data show", "data verify",
        "study status", "study best", "study export", "ablate list", "ablate plan", "ablate report", "ablate status",
    }  # fmt: skip

    def names(group: click.Group, before: str = "") -> list[str]:
        out = []
        for name, command in group.commands.items():
            whole = f"{before}{name}"
            out += names(command, f"{whole} ") if isinstance(command, click.Group) else [whole]
        return out

    assert set(names(cli)) <= reading | WRITING


def test_a_database_with_its_log_is_copied_as_it_stands(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    writer = sqlite3.connect(place, isolation_level=None)
    writer.execute("pragma journal_mode=wal")
    writer.execute("create table t (x)")
    writer.execute("insert into t values (1)")
    first = readable_copy(place)
    assert sqlite3.connect(first).execute("select x from t").fetchall() == [(1,)]
    assert readable_copy(place) == first
    writer.execute("insert into t values (2)")
    second = readable_copy(place)
    assert second != first
    assert sqlite3.connect(second).execute("select x from t").fetchall() == [(1,), (2,)]
    writer.close()


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database, " * 100)
    with pytest.raises(UserError, match=r"a\.db cannot be read: file is not a database"):
        readable_copy(tmp_path / "a.db")


def test_writable_means_the_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.db").touch()
    assert is_writable(tmp_path / "a.db")
    assert is_writable(tmp_path / "new" / "folder" / "a.db")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert not is_writable(tmp_path / "a.db")
    assert not is_writable(tmp_path / "new" / "folder" / "a.db")
