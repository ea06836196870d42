"""A workspace with an empty database of MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audio_cls.core.workspace import Workspace
from audio_cls.tracking.store import open_client


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database: MLflow takes seconds to make one."""
    workspace = Workspace(tmp_path_factory.mktemp("template"))
    open_client(workspace, None)
    return workspace.mlflow_db


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    root = tmp_path / "a project_%"
    root.mkdir()
    shutil.copy(template, root / "mlflow.db")
    return Workspace(root)
