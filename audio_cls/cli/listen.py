"""`audio-cls listen`: what models say of the sound of the last seconds, from a microphone or a file."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls.cli.console import console, say
from audio_cls.cli.options import DEVICE, TRACKING, WITH, workspace_of
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import printable

if TYPE_CHECKING:
    from audio_cls.inference.labeller import Labeller
    from audio_cls.inference.listening import Heard, Latency, Listener
    from audio_cls.inference.microphone import LiveInput

BAR = 24  # columns of a probability of 1
METER_FLOOR = -60.0  # dB, an empty level meter


@click.command("listen")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN...]")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Labels of each model.")
@click.option(
    "--hop",
    type=click.FloatRange(0.05, 60),
    default=0.5,
    show_default=True,
    help="Seconds from one answer to the next.",
)
@click.option("--device-in", metavar="NAME|NUMBER", help="Input device. Default: the system's.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Stop after so many seconds of sound.")
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Play a file in real time instead of a microphone.",
)
@click.option(
    "--speed", type=click.FloatRange(0.1, 100), default=1.0, show_default=True, help="With --from: times real time."
)
@DEVICE
@TRACKING
@WITH
@click.pass_context
def listen(
    ctx: click.Context,
    runs: tuple[str, ...],
    top: int,
    hop: float,
    device_in: str | None,
    seconds: float | None,
    file: Path | None,
    speed: float,
    device: str,
) -> None:
    """Show what trained models say of the last seconds of a microphone's sound, several models side by side.

    Ctrl-C ends it. Needs the extra `listen`, except with --from."""
    from audio_cls.core.device import tune_process
    from audio_cls.core.stopping import Interrupted, StopRequest
    from audio_cls.inference.listening import Latency, Listener
    from audio_cls.inference.opening import open_labellers
    from audio_cls.tracking import Tracker

    if file is None and speed != 1:
        raise UserError("--speed is of a file that is played: add --from FILE")
    if file is not None and device_in is not None:
        raise UserError("--device-in names a microphone and --from a file to play instead: leave one out")
    tune_process()
    source = _open(file, speed, device_in)
    latency = Latency()
    with ExitStack() as stack:
        stack.callback(source.close)
        labellers = open_labellers(runs, Tracker(workspace_of(ctx)), device)
        listener = Listener(source, labellers, hop)
        say(f"listening to {source.name} at {source.sample_rate} Hz (Ctrl-C ends it)")
        stop = stack.enter_context(StopRequest(grace=0))
        display = stack.enter_context(Display(labellers, top))
        for heard in listener.hear(seconds or float("inf"), lambda: stop.reason() is not None):
            display.show(heard)
            latency.add(time.monotonic() - heard.captured_at)
        left = stop.reason() is not None
    for line in _summary(listener, latency):
        say(line)
    if left and (file is not None or seconds is not None):
        raise Interrupted(f"left after {listener.seconds:.1f} s of sound")


def _open(file: Path | None, speed: float, wanted: str | None) -> LiveInput:
    """Return the microphone, or the file that is played."""
    from audio_cls.inference.microphone import open_file, open_microphone

    return open_microphone(wanted) if file is None else open_file(file, speed)


def _summary(listener: Listener, latency: Latency) -> list[str]:
    """Return what was heard, how fast, and what was lost."""
    lines = [f"{listener.seconds:.1f} s of sound, {len(latency)} answers of each model"]
    if len(latency):
        lines.append(latency.describe())
    if listener.source.overruns:
        lines.append(f"{listener.source.overruns} times sound was lost before it was read (overruns)")
    if listener.skipped:
        lines.append(
            f"{listener.skipped} windows were skipped: the models take longer than the hop of {listener.hop_seconds:g} s (--hop)"
        )
    return lines


class Display:
    """Bars of each model's best labels, side by side, with a level meter; one plain line an answer where there is no terminal."""

    def __init__(self, labellers: list[Labeller], top: int, out: Any = None) -> None:
        self._labellers, self._top = labellers, top
        self._console = out or console()
        self._live: Any = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, heard: Heard) -> None:
        """Show an answer of each model."""
        if self._live is not None:
            self._live.update(self._drawn(heard), refresh=True)
            return
        answers = [
            f"{labeller.name}: {', '.join(f'{name} {score:.2f}' for name, score in self._best(labeller, scores)) or 'silence'}"
            for labeller, scores in zip(self._labellers, heard.scores, strict=True)
        ]
        say(f"{heard.end:8.1f} s {heard.level:6.1f} dB  {' | '.join(answers)}")

    def _best(self, labeller: Labeller, scores: Any) -> list[tuple[str, float]]:
        return [] if scores is None else labeller.top(scores, self._top)

    def _drawn(self, heard: Heard) -> Any:
        """Return what the terminal shows: the meter above, the models in columns below."""
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        fill = min(1.0, max(0.0, 1 - heard.level / METER_FLOOR))
        style = "red" if heard.level > -3 else "green"
        meter = Text.assemble(
            f"{heard.end:8.1f} s  level ",
            (_bar(fill), style),
            f" {heard.level:6.1f} dB",
            ("  silence" * self._silent(heard), "dim"),
        )
        models = [self._model(labeller, scores) for labeller, scores in zip(self._labellers, heard.scores, strict=True)]
        return Group(meter, Columns(models, padding=(1, 3)))

    def _silent(self, heard: Heard) -> bool:
        return all(scores is None for scores in heard.scores)

    def _model(self, labeller: Labeller, scores: Any) -> Any:
        """Return one model's labels with their bars; as many lines whether there is sound or not."""
        from rich.table import Table
        from rich.text import Text

        drawn = Table(
            title=Text(printable(labeller.name), style="bold"),
            title_justify="left",
            box=None,
            show_header=False,
            pad_edge=False,
        )
        drawn.add_column(
            width=min(24, max(len(printable(name)) for name in labeller.classes)), no_wrap=True, overflow="ellipsis"
        )
        drawn.add_column(width=BAR)
        drawn.add_column(justify="right", width=5)
        best = self._best(labeller, scores)
        for name, score in best:
            drawn.add_row(Text(printable(name)), Text(_bar(score), style="cyan"), f"{score:.2f}")
        for _ in range(min(self._top, len(labeller.classes)) - len(best)):
            drawn.add_row(Text("-", style="dim"), "", "")
        return drawn


def _bar(share: float) -> str:
    """Return a bar of `BAR` columns, drawn in eighths of a column."""
    eighths = round(share * BAR * 8)
    bar = "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
    return bar.ljust(BAR)
