"""The command line in tests: as a process, or, where it installs no signal handlers, in this one, which has everything imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(workspace: Path, *words: str, code: int | None = 0, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own, its exit code checked."""
    env = {**os.environ, "AUDIO_CLS_WORKSPACE": str(workspace), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "audio_cls.cli", *words]
    done = subprocess.run(line, capture_output=True, text=True, env=env, timeout=280, **kwargs)
    if code is not None:
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def call(capsys: pytest.CaptureFixture[str], workspace: Path, *words: str, code: int = 0) -> str:
    """A command in this process: what it printed on both streams."""
    from audio_cls.cli import main

    capsys.readouterr()
    try:
        found = main(["--workspace", str(workspace), *words])
    except SystemExit as stop:
        found = int(stop.code or 0)
    shown = capsys.readouterr()
    assert found == code, f"{words}: {found}\n{shown.out}\n{shown.err}"
    return shown.out + shown.err
