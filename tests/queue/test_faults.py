"""The real job under fire: a study of trained networks, killed at random moments, against one that was left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "faults.py"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "words",
    [
        ["--faults", "2", "--workers", "1", "--trials", "5", "--epochs", "6", "--longest", "9"],
        ["--faults", "4", "--workers", "2", "--trials", "5", "--epochs", "6", "--longest", "8", "--kinds", "kill,kill-worker,term,stop", "--seed", "1"],
    ],
    ids=["one worker", "two workers"],
)  # fmt: skip
def test_nothing_is_lost(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words], capture_output=True, text=True, env=dict(os.environ), timeout=880
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wrong: 0" in done.stdout
