"""Where the UI of a workspace is served: a free port, and the address of a server that runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace, atomic_write

__all__ = ["free_port", "note_address", "running_address"]

PORTS_TRIED = 50


def free_port(host: str, port: int, what: str = "the UI") -> int:
    """Return `port`, or the next one that is free on this host.

    Raises:
        UserError: where none of the next 50 is free, or the host is not this machine's.
    """
    reason = ""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except (OSError, UnicodeError) as error:
                reason = getattr(error, "strerror", None) or str(error)
            else:
                return candidate
    raise UserError(
        f"{what} cannot listen on {host}:{port} or the ports after it: {reason}. Choose another --port or --host."
    )


def note_address(workspace: Workspace, address: str) -> None:
    """Note that this process serves the workspace's UI, so that links printed by other commands lead to it."""
    with contextlib.suppress(OSError):  # a nicety
        atomic_write(_file(workspace), json.dumps({"address": address, "process": os.getpid()}))


def running_address(workspace: Workspace) -> str | None:
    """Return the address at which the workspace's UI is served now; None if it is not."""
    try:
        noted = json.loads(_file(workspace).read_text(encoding="utf-8"))
        os.kill(int(noted["process"]), 0)
        address = str(noted["address"])
        host, _, port = address.removeprefix("http://").rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=0.5).close()
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return address


def _file(workspace: Workspace) -> Path:
    return workspace.root / ".locks" / "ui.json"
