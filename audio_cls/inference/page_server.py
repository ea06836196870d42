"""Serving the page of `audio-cls demo`: on loopback unless told otherwise, to itself only, and ended at once."""

from __future__ import annotations

import gc
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from audio_cls.core.snapshots import scratch_folder
from audio_cls.core.stopping import StopRequest
from audio_cls.core.workspace import Workspace
from audio_cls.inference.opening import open_labellers
from audio_cls.inference.page import build_page, import_gradio
from audio_cls.inference.page_answer import answer_of
from audio_cls.inference.page_examples import validation_examples
from audio_cls.inference.page_markup import STYLE, answer_markup, heading_markup
from audio_cls.tracking import Tracker
from audio_cls.tracking.addresses import free_port

__all__ = ["Guard", "PageOptions", "page_application", "serve", "serve_page"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Nothing is asked of another server, whatever a theme or a component names.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'self'"
)


@dataclass(frozen=True)
class PageOptions:
    """How the page is served.

    max_bytes: of an upload. top: labels of each model. browser: open one where there is one.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    max_bytes: int = 100_000_000
    top: int = 5
    browser: bool = True


def serve_page(
    names: Sequence[str], workspace: Workspace, device: str, options: PageOptions, say: Callable[[str], None] = print
) -> None:
    """Serve the page of some models until SIGINT or SIGTERM. What was uploaded is removed at the end.

    Args:
        names: runs, studies or exported folders.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        say: called with each line to show.

    Raises:
        UserError: without Gradio, for a name that is no model, or where no port is free.
    """
    folder = scratch_folder()
    gradio = import_gradio(folder / "uploads")
    tracker = Tracker(workspace)
    labellers = open_labellers(names, tracker, device)
    clips = folder / "examples"
    clips.mkdir()
    examples = next(filter(None, (validation_examples(name, tracker, clips) for name in names)), [])

    def answer(path: Path) -> str:
        return answer_markup(answer_of(path, labellers, options.top))

    page = build_page(gradio, heading_markup(labellers), answer, examples)
    application = page_application(gradio, page, options.host, options.max_bytes)
    port = free_port(options.host, options.port, "the page")
    if port != options.port:
        say(f"port {options.port} is taken: using {port}")
    if options.host not in LOOPBACK:
        say(f"warning: everybody who reaches {options.host}:{port} can use this page: it has no password")
    address = f"http://{_address_host(options.host)}:{port}"

    def started() -> None:
        say(f"{address}  (Ctrl-C ends it)")
        if options.browser:
            webbrowser.open(address)

    serve(application, options.host, port, started)


def page_application(gradio: Any, page: Any, host: str, max_bytes: int) -> Any:
    """Return the ASGI application of a page.

    Args:
        gradio: the module.
        page: its `Blocks`.
        host: that it is served at: on loopback only requests that name this machine are answered.
        max_bytes: of an upload.
    """
    from fastapi import FastAPI

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"])
    outer = FastAPI(openapi_url=None)
    # Gradio checks that a path in a request is one of its uploads only in pages that it launched itself.
    page.has_launched = True
    page.enable_queue = True
    gradio.mount_gradio_app(
        outer,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=STYLE,
    )
    return Guard(outer, host)


class Guard:
    """Answers requests that come from its own page, with a policy that keeps the page from asking other servers."""

    def __init__(self, app: Any, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if fault := self._fault(headers):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": fault.encode()})
            return

        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", ()), *extra, (b"referrer-policy", b"no-referrer")]
            await send(message)

        await self._app(scope, receive, with_policy)

    def _fault(self, headers: dict[str, str]) -> str:
        """Return why a request is refused: another site's, or one that reached loopback under a foreign name."""
        host = headers.get("host", "")
        if self._host in LOOPBACK and _name(f"//{host}") not in LOOPBACK:
            return "this page is served to this machine only"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "a request of another site"
        return ""


def _address_host(host: str) -> str:
    return f"[{host}]" if ":" in host else "localhost" if host == "0.0.0.0" else host


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def serve(application: Any, host: str, port: int, started: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM, and end at once then: open connections are not waited for.

    Args:
        started: called once requests are answered.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level="critical",
        timeout_graceful_shutdown=0,
        ws="none",
        server_header=False,
    )
    with StopRequest():  # uvicorn hands the signal on when it has ended
        Server(config).run()
    gc.freeze()  # else the interpreter looks through every object of Gradio and PyTorch before it ends: more than a second
