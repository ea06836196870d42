"""MLflow's own server, for whoever adds pages to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["mlflow_page", "server_application"]


def server_application() -> Any:
    """Return MLflow's ASGI application, to which routes can be added. Called in the server's process."""
    from mlflow.server.fastapi_app import create_fastapi_app

    return create_fastapi_app()


def mlflow_page() -> str:
    """Return the HTML of MLflow's UI."""
    from mlflow.server import app

    return (Path(str(app.static_folder)) / "index.html").read_text(encoding="utf-8")
