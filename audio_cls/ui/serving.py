"""Starting the server of a workspace's UI: its command, a free port, a browser if there is one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import NoReturn

from audio_cls.core.errors import UserError
from audio_cls.core.interpreter import python_command, safe_environment
from audio_cls.core.snapshots import scratch_folder
from audio_cls.core.workspace import Workspace
from audio_cls.tracking.addresses import free_port, note_address, running_address
from audio_cls.tracking.reads import without_password
from audio_cls.tracking.store import copy_to_read, database_uri, import_mlflow, open_client
from audio_cls.ui.app import BROWSER_VARIABLE, STORAGE_VARIABLE

__all__ = ["APP", "has_browser", "serve_ui", "ui_command"]

APP = "audio-cls"  # the name of our entry point in the group mlflow.app
Say = Callable[[str], None]


def ui_command(
    workspace: Workspace, port: int = 5000, host: str = "127.0.0.1", database: str | None = None, app: str | None = None
) -> list[str]:
    """Return the command that serves MLflow's UI on the workspace, with the start page where `app` is ours."""
    return [
        *python_command("mlflow", "server"),
        "--uvicorn-opts",
        f"--app-dir {os.devnull}",  # uvicorn puts it, the current folder by default, at the front of the search path
        "--backend-store-uri",
        database or database_uri(workspace.mlflow_db),
        "--default-artifact-root",
        str(workspace.artifacts),
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
        *(["--app-name", app] if app else []),
    ]


def serve_ui(
    workspace: Workspace,
    port: int = 5000,
    host: str = "127.0.0.1",
    *,
    browser: bool = True,
    storage: str | None = None,
    say: Say = print,
) -> int:
    """Become the UI's server, until it is interrupted. The database is created or relocated first.

    Returns the exit code where this process does not become the server: 0 after saying where the workspace is served already, or that
    of the server of a read-only workspace.

    Raises:
        UserError: where no port is free, or the runs lie on a server, which has a UI of its own.
    """
    if workspace.tracking:
        raise UserError(f"the runs lie on the server {without_password(workspace.tracking)}: open that in a browser")
    if running := running_address(workspace):
        say(f"{running} serves this workspace already")
        if browser and has_browser():
            import webbrowser

            webbrowser.open(running)
        return 0
    found = free_port(host, port)
    if found != port:
        say(f"port {port} is taken: using {found}")
    address = f"http://{f'[{host}]' if ':' in host else 'localhost' if host == '0.0.0.0' else host}:{found}"
    import_mlflow()
    read_only = workspace.read_only
    if read_only:
        database = database_uri(copy_to_read(workspace))
        say("the workspace is read-only: shown as it is now; start the UI again to see what is new")
    else:
        database = None
        open_client(workspace, None)
        renew_views(workspace, storage)
        note_address(workspace, address)
    app = APP if any(e.name == APP for e in entry_points(group="mlflow.app")) else None
    if app is None:
        say("no start page: install audio_cls again (pip install -e .), so that MLflow finds it")
    say(f"{address}  (Ctrl-C ends it)")
    # MLflow would start a dozen job consumers for its GenAI features: nothing here uses them, and they keep a core busy.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **safe_environment(), **workspace.environment()}
    if storage:
        environment[STORAGE_VARIABLE] = storage
    if app and browser and has_browser():
        environment[BROWSER_VARIABLE] = address
    os.chdir(workspace.root)
    sys.stdout.flush()
    command = ui_command(workspace, found, host, database, app)
    if read_only:  # this process stays: it removes the copies, those of the server as well, which ends without tidying
        environment["TMPDIR"] = str(scratch_folder())
        return _run(command, environment)
    return _become(command, environment)


def renew_views(workspace: Workspace, storage: str | None = None) -> None:
    """Save the views of studies that have none of their own: those of earlier versions showed all studies of a corpus at once.

    What is wrong with one study costs nothing but its views.
    """
    from audio_cls.queue.status import searched_keys, stored_status
    from audio_cls.queue.storage import open_storage, study_names
    from audio_cls.tracking import Tracker
    from audio_cls.tracking.views import study_view_names

    tracker = Tracker(workspace)
    try:
        saved = tracker.views_by_experiment()
        runs = {r.tags.get("study", ""): r for r in tracker.runs(filter="tags.kind = 'study'")}
        lacking = {n: r for n, r in runs.items() if n and study_view_names(n)[0] not in saved.get(r.experiment_id, {})}
        if not lacking or not (storage or workspace.optuna_db.exists()):
            return
        where = open_storage(storage or workspace.optuna_db, must_exist=True)
        names = set(study_names(where))
    except UserError:
        return
    for name, run in lacking.items():
        if name not in names:
            continue
        with contextlib.suppress(Exception):
            status = stored_status(name, where)
            tracker.saved_views(
                tracker.experiment_name(run.experiment_id),
                name,
                status.metric,
                searched_keys(status),
                ascending=status.direction == "minimize",
            )


def has_browser() -> bool:
    """Whether a browser can be opened here: there is a screen, and nobody sits at the other end of an SSH connection."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process by the server: as a child it would outlive a signal to us."""
    os.execve(command[0], command, environment)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run the server as a child, which gets our signals. Returns its exit code."""
    child = subprocess.Popen(command, env=environment, start_new_session=True)

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    return child.wait()
