"""Fixtures shared by all tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers import PostgreSQL

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands that tests run as processes keep the bytecode that they compile: without it each compiles PyTorch and MLflow again, ten
# seconds of processor time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ESC10 = Path(os.environ.get("ESC10_ROOT", Path(__file__).resolve().parents[2] / "shared" / "data" / "esc10"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: with several workers, which take a file at a time, the short ones fill the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def mlflow_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workspaces of this process get a copy of one new mlflow.db: MLflow's migrations take more than a second for each."""
    from audio_cls.tracking import store

    migrated = tmp_path_factory.mktemp("mlflow") / "new.db"
    create = store._new_database

    def copy_new(path: Path, artifacts: Path) -> None:
        if not migrated.exists():
            create(migrated, migrated.parent)
        shutil.copy(migrated, path)
        with contextlib.closing(sqlite3.connect(path)) as con, con:
            con.execute("update experiments set artifact_location = ? || '/' || experiment_id", (str(artifacts),))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_new_database", copy_new)
        yield


@pytest.fixture(scope="session")
def esc10_root() -> Path:
    """The folder of ESC-10 in ESC-50's layout; the test is skipped, saying so, where it is absent."""
    if not (ESC10 / "meta" / "esc50.csv").exists():
        pytest.skip("ESC-10 is not here: set ESC10_ROOT to a folder with audio/ and meta/esc50.csv")
    return ESC10


def write_tones(
    root: Path, *, n_per_class: int = 10, folds: int = 5, seconds: float = 1.0, sample_rate: int = 8000
) -> Path:
    """A small data set in a CSV layout: three kinds of sounds that a network can tell apart after a few epochs."""
    import numpy as np
    import soundfile as sf

    (root / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["path,label,fold,group"]
    for k, label in enumerate(("hum", "hiss", "beep")):
        for i in range(n_per_class):
            n = int(sample_rate * seconds * rng.uniform(0.7, 1.5))
            t = np.arange(n) / sample_rate
            noise = rng.standard_normal(n)
            tone = np.sin(2 * np.pi * rng.uniform(100, 300) * t)
            beep = np.sin(2 * np.pi * rng.uniform(1500, 3000) * t) * (np.sin(2 * np.pi * 4 * t) > 0)
            x = (0.3 * tone + 0.02 * noise, 0.1 * noise, 0.3 * beep + 0.02 * noise)[k]
            sf.write(root / "audio" / f"{label}{i}.wav", x, sample_rate)
            rows.append(f"audio/{label}{i}.wav,{label},{i % folds + 1},g{label}{i}")
    (root / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root / "clips.csv"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of our own; skipped, saying why, where there is none."""
    from tests.servers import Missing, postgresql

    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(postgresql())
        except Missing as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def tones_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a packed corpus `tones`: 30 clips, 3 classes, 5 folds, 8 kHz."""
    from audio_cls.data import sources
    from audio_cls.data.packing import prepare

    root = tmp_path_factory.mktemp("tones")
    manifest = sources.read(write_tones(root / "source"), "csv")
    prepare(manifest, root / "corpora" / "tones", sample_rate=8000, workers=1)
    return root / "corpora" / "tones"
