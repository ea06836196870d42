"""MLflow's server with routes of ours: the start page at `/`, MLflow's UI at `/mlflow`, reports at `/report/RUN`.

MLflow finds `create_app` by the entry point `mlflow.app` (`mlflow server --app-name audio-cls`). Its checks of the Host header and
of other sites' requests cover these routes as well.
"""

from __future__ import annotations

import os
import re
import threading
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.tracking.server import mlflow_page, server_application
from audio_cls.ui.overview import Collector
from audio_cls.ui.page import CONTENT_SECURITY_POLICY, MLFLOW_PATH, start_page

__all__ = ["create_app"]

STORAGE_VARIABLE = "AUDIO_CLS_STORAGE"
BROWSER_VARIABLE = "AUDIO_CLS_OPEN_BROWSER"  # the address to open once the server answers
# A report may come from an archive that somebody else made: it gets an origin of its own, which cannot ask this server anything.
_REPORT_POLICY = "sandbox allow-scripts allow-downloads allow-popups; connect-src 'none'; form-action 'none'"
# What MLflow's UI keeps in the browser, where the user has not chosen: its side for training, no assistant, no telemetry.
_DEFAULTS = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.settings.telemetry.enabled_v1": "false",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
}


def create_app() -> Any:
    """Return MLflow's ASGI application with the routes of the start page; called by its server."""
    app = server_application()
    app.router.routes[:0] = _routes(Collector(Workspace.find(tracking=""), os.environ.get(STORAGE_VARIABLE)))
    if address := os.environ.pop(BROWSER_VARIABLE, ""):
        threading.Thread(target=_open_browser, args=(address,), daemon=True).start()
    return app


def _routes(collector: Collector) -> list[Any]:
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    lock = threading.Lock()

    def start(_: Request) -> Response:
        with lock:  # one at a time: the others get what it found
            page = start_page(collector.overview())
        return HTMLResponse(
            page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
        )

    def mlflow(_: Request) -> Response:
        return HTMLResponse(_mlflow_page(), headers={"Cache-Control": "no-cache"})

    def report(request: Request) -> Response:
        run_id = request.path_params["run"]
        if not re.fullmatch(r"[0-9a-f]{32}", run_id):
            return PlainTextResponse(f"{run_id!r} is no run", status_code=404)
        try:
            page = collector.tracker.download(run_id, "report.html").read_bytes()
        except (UserError, OSError) as error:
            return PlainTextResponse(str(error), status_code=404)
        return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY})

    return [Route("/", start), Route(MLFLOW_PATH, mlflow), Route("/report/{run}", report)]


def _mlflow_page() -> str:
    """Return MLflow's page, whose relative addresses lead to the root from here as well, with defaults for what it
    asks a browser.
    """
    lines = "".join(f"localStorage.getItem({k!r}) ?? localStorage.setItem({k!r}, {v!r});" for k, v in _DEFAULTS.items())
    return mlflow_page().replace("<head>", f"<head><script>{lines}</script>", 1)


def _open_browser(address: str) -> None:
    import time
    import webbrowser
    from urllib.request import urlopen

    for _ in range(600):
        try:
            with urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    webbrowser.open(address)
                    return
        except OSError:
            time.sleep(0.1)
