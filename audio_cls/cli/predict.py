"""`audio-cls predict`: label audio files, folders of them, or standard input with trained models."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audio_cls.cli.console import progress, say
from audio_cls.cli.options import DEVICE, TRACKING, WITH, workspace_of
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count, duration

if TYPE_CHECKING:
    from audio_cls.inference.formats import Writer
    from audio_cls.inference.labeller import Labeller
    from audio_cls.inference.prediction import Meter
    from audio_cls.inference.timeline import Merging

STDIN = "-"
Write = Callable[[Sequence[str]], None]


def _named_paths(ctx: click.Context, _: click.Parameter, paths: tuple[str, ...]) -> tuple[Path, ...]:
    """Paths as given. An empty one (a shell's unset variable) is refused: to `Path` it is the current folder."""
    if any(not path for path in paths):
        raise UserError(
            "an empty path ('') among the files to label. Allowed: audio files and folders; . is this folder"
        )
    return tuple(Path(path) for path in paths)


@dataclass(frozen=True)
class Asked:
    """The options of `predict` that say what is computed and how it is written."""

    top: int
    format: str
    timeline: bool
    average: bool
    hop_seconds: float | None
    merging: Merging
    raw_rate: int | None


@click.command("predict")
@click.argument("model", metavar="RUN|STUDY|MODEL")
@click.argument("paths", nargs=-1, required=True, callback=_named_paths, metavar="FILES|FOLDERS|-")
@click.option("--beside", multiple=True, metavar="MODEL", help="Another model, side by side. Repeatable.")
@click.option(
    "--average", is_flag=True, help="Also the mean of the models' probabilities; with --timeline instead of theirs."
)
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Labels of each answer.")
@click.option("--timeline", is_flag=True, help="When each label is heard, instead of one answer a file.")
@click.option(
    "--hop",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="From one window to the next. Default: with --timeline half a window, else as in the run's evaluation.",
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="With --timeline. Default: the run's tuned ones, else 0.5."
)
@click.option(
    "--min-length", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Leave out shorter events."
)
@click.option(
    "--merge-gap", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Close shorter gaps between events."
)
@click.option(
    "--format",
    "form",
    default=None,
    metavar="NAME",
    help="table, jsonl, csv; of a timeline also audacity, rttm. Default: table.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write there instead of standard output.",
)
@click.option(
    "--raw",
    "raw_rate",
    type=click.IntRange(1000),
    metavar="RATE",
    help="Standard input is 16-bit little-endian mono PCM at this rate in Hz.",
)
@DEVICE
@TRACKING
@WITH
@click.pass_context
def predict(
    ctx: click.Context, model: str, paths: tuple[Path, ...], beside: tuple[str, ...], device: str, **options: Any
) -> None:
    """Label audio of any length with a run's best weights, or those of a study's best run.

    FILES may be folders; - is standard input (an audio file, or PCM with --raw). Files that cannot be read are named on stderr and the
    others labelled: exit code 1, or 2 where none could be read."""
    from audio_cls.core.device import tune_process
    from audio_cls.inference.files import audio_files
    from audio_cls.inference.formats import make_writer
    from audio_cls.inference.opening import open_labellers
    from audio_cls.inference.prediction import AVERAGE, Meter, check_average, timeline_words
    from audio_cls.tracking import Tracker

    asked, to = _asked(options), options["to"]
    if asked.raw_rate is not None and Path(STDIN) not in paths:
        raise UserError("--raw says what standard input holds: name - among the files")
    tune_process()
    files = audio_files(paths)
    labellers = open_labellers((model, *beside), Tracker(workspace_of(ctx)), device)
    if asked.average:
        check_average(labellers)
    names = [labeller.name for labeller in labellers]
    if asked.average:
        names = [AVERAGE] if asked.timeline else [*names, AVERAGE]
    writer = make_writer(asked.format, timeline=asked.timeline, models=names, n_files=len(files))
    words = timeline_words(labellers, asked.hop_seconds, asked.merging, asked.average) if asked.timeline else {}
    meter, bad, is_interrupted = Meter(), 0, False
    notes: dict[str, None] = {}
    with _output(to) as write, _standard_input(meter, files, asked, len(labellers)), _shown(meter, len(files), to):
        write(writer.head())
        try:
            if asked.timeline:
                results = _timelines(labellers, files, asked, words, writer, write, meter)
            else:
                results = _answers(labellers, files, asked, writer, write, meter, notes)
            for is_good in results:
                meter.n_files, bad = meter.n_files + 1, bad + (not is_good)
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            for note in notes:
                say(f"note: {note}", err=True)
            if meter.n_files > bad:
                say(meter.throughput(), err=True)
    if is_interrupted:
        say(_left(meter.n_files, len(files), to), err=True)
        raise SystemExit(130)
    if bad == len(files):
        raise UserError(f"none of {len(files)} file(s) could be read")
    if bad:
        say(f"{bad} of {len(files)} files could not be labelled", err=True)
        raise SystemExit(1)


def _left(n_done: int, n_files: int, to: Path | None) -> str:
    """Return what to say after Ctrl-C."""
    kept = "what was printed stands" if to is None else f"what was written stays in {to}"
    return f"interrupted: {n_done} of {count(n_files, 'file')} done; {kept}"


def _asked(options: Mapping[str, Any]) -> Asked:
    """Return the options as one value; refused where they contradict each other."""
    from audio_cls.inference.timeline import Merging

    if options["as_json"] and options["form"] not in (None, "jsonl"):
        raise UserError(f"--json is --format jsonl, but --format {options['form']} is asked for: leave out one of them")
    merging = Merging(options["threshold"], options["min_length"], options["merge_gap"])
    if not options["timeline"] and merging != Merging():
        raise UserError("--threshold, --min-length and --merge-gap make events of a timeline: add --timeline")
    return Asked(
        top=options["top"],
        format="jsonl" if options["as_json"] else options["form"] or "table",
        timeline=options["timeline"],
        average=options["average"],
        hop_seconds=options["hop"],
        merging=merging,
        raw_rate=options["raw_rate"],
    )


def _answers(
    labellers: Sequence[Labeller],
    files: Sequence[Path],
    asked: Asked,
    writer: Writer,
    write: Write,
    meter: Meter,
    notes: dict[str, None],
) -> Iterator[bool]:
    """Write one answer a file and model; yields whether each file could be read. `notes` receives which windows were judged."""
    from audio_cls.inference.prediction import label_files

    judged = label_files(
        labellers, files, hop_seconds=asked.hop_seconds, average=asked.average, meter=meter
    )  # fmt: skip
    for found in judged:
        for labeller, (name, one) in zip(
            itertools.chain(labellers, labellers[:1]), found, strict=False
        ):  # the average is last
            if one.scores is None:
                _fault(one.path, one.error, writer, write)
                continue
            write(writer.answer(name, one, labeller.top(one.scores, asked.top)))
            if name == labeller.name and (note := labeller.windows_note(one.seconds, asked.hop_seconds)):
                notes[note if len(labellers) == 1 else f"{name}: {note}"] = None
        yield all(one.scores is not None for _, one in found)


def _timelines(
    labellers: Sequence[Labeller],
    files: Sequence[Path],
    asked: Asked,
    words: Mapping[str, str],
    writer: Writer,
    write: Write,
    meter: Meter,
) -> Iterator[bool]:
    """Write the events of each file; yields whether it could be read."""
    from audio_cls.data.audio import BadAudio
    from audio_cls.inference.prediction import label_timeline

    for path in files:
        try:
            events = label_timeline(
                labellers, path, hop_seconds=asked.hop_seconds, merging=asked.merging, average=asked.average, meter=meter
            )  # fmt: skip
            write(writer.begin(path, words))
            for name, event in events:
                write(writer.event(path, name, event, words[name]))
        except BadAudio as error:
            _fault(path, str(error), writer, write)
            yield False
        else:
            yield True


def _fault(path: Path, why: str, writer: Writer, write: Write) -> None:
    from audio_cls.inference.formats import one_line

    say(f"{one_line(path)}: {why}", err=True)
    write(writer.fault(path, why))


def _say_all(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


@contextlib.contextmanager
def _output(to: Path | None) -> Iterator[Write]:
    """Give what writes lines to a file, or to standard output; each is there at once."""
    if to is None:
        yield _say_all
        return
    with open(to, "w", encoding="utf-8", errors="surrogateescape") as file:  # names of files need not be UTF-8

        def write(lines: Sequence[str]) -> None:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()

        yield write


@contextlib.contextmanager
def _shown(meter: Meter, n_files: int, to: Path | None) -> Iterator[None]:
    """Show the audio that has been read, on standard error, where it does not run through the results on a terminal."""
    if to is None and sys.stdout.isatty():
        yield
        return
    with progress("labelling", err=True) as show:
        meter.on_block = lambda seconds: show(meter.n_files, n_files, f"{duration(seconds)} of audio")
        yield


@contextlib.contextmanager
def _standard_input(meter: Meter, files: Sequence[Path], asked: Asked, n_models: int) -> Iterator[None]:
    """Make standard input readable where it is among the files: as it arrives for the timeline of PCM, else from a copy on disk."""
    from audio_cls.inference.streaming import PcmPipe, spool

    if Path(STDIN) not in files:
        yield
        return
    pipe = sys.stdin.buffer
    if asked.raw_rate is not None and asked.timeline and n_models == 1:
        meter.sounds[Path(STDIN)] = PcmPipe(pipe, asked.raw_rate)
        yield
        return
    with spool(pipe, asked.raw_rate) as copy:
        meter.sounds[Path(STDIN)] = copy
        yield
