"""The page of `audio-cls demo`: record, upload or pick an example, and see what each model says. Gradio draws it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.inference.page_markup import fault_markup

__all__ = ["build_page", "import_gradio"]

INSTALL = "pip install 'audio_cls[demo]'"
CHECK_SECONDS, KEPT_SECONDS = 60, 600  # how often old uploads are looked for, and how long one is kept

EMPTY = '<div class="answer"><p class="note">{}</p></div>'


def import_gradio(temporary: Path) -> Any:
    """Import Gradio with its telemetry off and its uploads in `temporary`.

    Raises:
        UserError: where it is not installed.
    """
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(temporary),
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="1",
        GRADIO_SSR_MODE="False",
    )
    try:
        import gradio
    except ImportError:
        raise UserError(f"the page needs Gradio: {INSTALL}") from None
    return gradio


def build_page(
    gradio: Any, heading: str, answer: Callable[[Path], str], examples: Sequence[tuple[str, Path]] = ()
) -> Any:
    """Return the page as Gradio's `Blocks`.

    Args:
        gradio: the module.
        heading: HTML above the recording.
        answer: the file of a recording -> HTML. A `UserError` is shown as one sentence.
        examples: (label, audio file) of each example.
    """

    ways = "Record something, upload a file or pick an example." if examples else "Record something or upload a file."
    empty = EMPTY.format(ways)

    def shown(path: str) -> str:
        try:
            return answer(Path(path))
        except UserError as error:
            return fault_markup(str(error))

    async def respond(path: str | None) -> str:
        return empty if path is None else await _in_thread(lambda: shown(path))

    with gradio.Blocks(
        title="audio_cls", analytics_enabled=False, delete_cache=(CHECK_SECONDS, KEPT_SECONDS), fill_width=False
    ) as page:
        gradio.HTML(heading, padding=False)
        recording = gradio.Audio(
            sources=["upload", "microphone"], type="filepath", label="Recording", editable=False, buttons=[]
        )
        _refuse_addresses(gradio, recording)
        if examples:
            gradio.Examples(
                examples=[[str(path)] for _, path in examples],
                example_labels=[label for label, _ in examples],
                inputs=[recording],
                label="Validation clips, by their true labels",
            )
        result = gradio.HTML(empty, padding=False)
        recording.change(respond, recording, result, api_visibility="private", show_progress="minimal")
    return page


def _refuse_addresses(gradio: Any, component: Any) -> None:
    """Keep a component from fetching what a request names by an address: only what was uploaded to this server is read."""
    fetch = component.async_move_resource_to_block_cache

    async def move(path: Any) -> Any:
        if "://" in str(path):
            raise gradio.Error("only uploaded files are read", print_exception=False)
        return await fetch(path)

    component.async_move_resource_to_block_cache = move


async def _in_thread(work: Callable[[], str]) -> str:
    """Await a call in a thread that the end of the server does not wait for."""
    future: Future[str] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="answer", daemon=True).start()
    return await asyncio.wrap_future(future)
