"""`audio-cls data`: get, generate, mix, convert, prepare, describe, show, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from audio_cls.cli.console import progress, say, table
from audio_cls.cli.options import WITH, Commands, workspace_of


@click.group(cls=Commands)
def data() -> None:
    """Generate, prepare and look at data sets."""


@data.command("generate")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the generator, for example n_clips=2000, imbalance=10, task=multilabel.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes. Default: one a core.")
def data_generate(directory: Path, assignments: tuple[str, ...], workers: int | None) -> None:
    """Make a data set of procedurally generated sounds in DIRECTORY (WAV files and a CSV)."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.data.sources.synthetic import Synthetic, generate

    config = Synthetic().override(dict(parse_assignment(a) for a in assignments))
    with progress("generating") as tell:
        generate(config, directory, workers=workers, progress=tell)
    say(
        f"{directory}: {config.n_clips} clips of {config.clip_seconds:g} s, {config.task}. Next: audio-cls data prepare {directory} --name NAME"
    )


@data.command("mix")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--clips", type=click.IntRange(1), default=1000, show_default=True, help="Mixtures in all.")
@click.option("--labels", type=click.FloatRange(1), default=2.0, show_default=True, help="Mean number of clips mixed.")
@click.option(
    "--tail",
    type=click.FloatRange(0, 3),
    default=0.7,
    show_default=True,
    help="How fast classes get rarer: rank ** -tail.",
)
@click.option("--seconds", type=float, default=None, help="Length of a mixture. Default: the median clip's.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws other mixtures.")
@click.pass_context
def data_mix(ctx: click.Context, name: str, folder: Path, **settings: Any) -> None:
    """Make a multi-label data set in FOLDER from mixtures of the clips of the corpus NAME."""
    from audio_cls.data.mixing import Mixtures, mix
    from audio_cls.runs.preparation import open_corpus

    corpus = open_corpus(workspace_of(ctx), name)
    median = round(float(sorted(corpus.seconds)[len(corpus) // 2]), 2)
    config = Mixtures.parse({**settings, "seconds": settings["seconds"] or median}, "data mix")
    with progress(f"mixing {name}") as tell:
        mix(corpus, folder, config, tell)
    say(f"{folder}: {config.clips} mixtures of {config.seconds:g} s. Next: audio-cls data prepare {folder} --name NAME")


@data.command("convert")
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "kind",
    required=True,
    metavar="LAYOUT",
    help="pictures: PNG spectrograms; embeddings: AudioSet's TFRecord files; parquet: audio in tables.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the layout, such as features.n_mels=64, rows=10, clips_per_file=500.",
)
@click.pass_context
def data_convert(ctx: click.Context, name: str, folder: Path, kind: str, assignments: tuple[str, ...]) -> None:
    """Write the clips of the corpus NAME to FOLDER in another layout: pictures, embeddings, parquet."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.runs.conversion import convert
    from audio_cls.runs.preparation import open_corpus

    corpus = open_corpus(workspace_of(ctx), name)
    with progress(f"converting {name}") as tell:
        made = convert(corpus, kind, folder, dict(map(parse_assignment, assignments)), tell)
    say(f"{folder}: {len(corpus)} clips as {kind}")
    for note in made.notes:
        say(f"note: {note}")
    say(f"Next: {made.command(f'{Path(name).name}-{kind}')}")


@data.command("get")
@click.argument("name", required=False)
@click.option("--to", "folder", type=click.Path(path_type=Path), default=None, help="Folder. Default: data/NAME.")
@click.option("--keep", is_flag=True, help="Keep the archives that were downloaded (in FOLDER/.archives).")
def data_get(name: str | None, folder: Path | None, keep: bool) -> None:
    """Download a published data set from its own page, check and unpack it. Without NAME: what there is, with licences."""
    from audio_cls.data.getting.catalogue import CATALOGUE, find_data_set
    from audio_cls.data.getting.get import get

    if name is None:
        rows = [
            [key, found.title, found.size or "ask for it", found.licence, found.page]
            for key, found in CATALOGUE.items()
        ]
        table("data sets", ["name", "data set", "size", "licence", "page"], rows)
        return
    found = find_data_set(name)
    say(f"{found.title} ({found.size}), licence: {found.licence}. {found.page}")
    place = folder or Path("data") / name
    try:
        with progress(f"downloading {name}") as tell:
            root = get(found, place, tell, keep=keep)
    except KeyboardInterrupt:
        say("what was downloaded is kept: the same command goes on", err=True)
        raise
    say(f"{root}: unpacked. Next: audio-cls data prepare {root} --name NAME")


class Rate(click.ParamType):
    """A sample rate: hertz, or auto."""

    name = "HERTZ|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number of hertz nor auto", param, ctx)


def _next_commands(name: str, task: str, domain: str) -> str:
    """What to do with a corpus that was prepared, one command a line."""
    first = {"sequence": " --set features=frames --set model=mlp", "image": " --set features=pixels"}.get(domain, "")
    first += " --set loss=bce" if task == "multilabel" else ""
    lines = [
        (f"data describe {name}", "what is in it"),
        (f"init {name}", "a study and an ablation that fit it"),
        (f"train --set data.corpus={name}{first}", "a first run"),
    ]
    width = max(len(words) for words, _ in lines)
    return "Next:\n" + "\n".join(f"  audio-cls {words:{width}}   # {what}" for words, what in lines)


@data.command("prepare")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The corpus's name: corpora/NAME.")
@WITH
@click.option(
    "--layout",
    default=None,
    help="Such as esc50, fsd50k, csv (docs/data.md), or a source of your own. Default: recognised by what is there.",
)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="An option of the layout.")
@click.option("--subset", default=None, help="esc10: only the clips that ESC-50's table flags so.")
@click.option(
    "--task", type=click.Choice(["multiclass", "multilabel"]), default=None, help="Default: as the labels are."
)
@click.option(
    "--sample-rate",
    type=Rate(),
    default="auto",
    show_default=True,
    help="Hz. auto: that of most files, 16000 at most; the one it has for a corpus that is there already.",
)
@click.option("--max-seconds", type=float, default=None, help="Keep at most so much of each clip.")
@click.option(
    "--trim-db",
    type=float,
    default=None,
    metavar="DB",
    help="Cut off silence at both ends of each clip, so many dB below its loudest part; 60 takes away digital silence.",
)
@click.option(
    "--on-bad",
    type=click.Choice(["skip", "refuse"]),
    default="refuse",
    show_default=True,
    help="What a broken, empty, silent or mislabelled clip does.",
)
@click.option(
    "--groups-from-names", is_flag=True, help="Take the groups (recordings, speakers) that file names suggest."
)
@click.option("--group-pattern", default=None, metavar="REGEX", help="Take each clip's group from its path.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes. Default: one a core.")
@click.pass_context
def data_prepare(
    ctx: click.Context,
    source: Path,
    name: str,
    assignments: tuple[str, ...],
    groups_from_names: bool,
    group_pattern: str | None,
    **settings: Any,
) -> None:
    """Decode, mix to mono, resample and pack SOURCE once. Interrupted, it continues."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.data.making import prepare
    from audio_cls.runs.own_parts import recorded

    given = {key: value for key, value in settings.items() if value is not None}  # a layout knows only some of them
    given |= dict(map(parse_assignment, assignments))
    given["groups_from_names"] = group_pattern or groups_from_names
    workspace = workspace_of(ctx)
    try:
        report = recorded(lambda: prepare(source, name=name, workspace=workspace, **given), workspace)
    except KeyboardInterrupt:
        say("what was decoded is kept: the same command goes on", err=True)
        raise
    made = report.corpus
    if report.bad:
        table("left out", ["clip", "row", "reason"], [[b.id, b.row or "", b.reason] for b in report.bad[:20]])
        if len(report.bad) > 20:
            say(f"... and {len(report.bad) - 20} more")
    rate = f"{made.sample_rate} Hz" if made.payload.is_waveform else made.payload.describe()
    say(
        f"{name}: {len(made)} clips, {len(made.classes)} classes, {made.task}, {rate} ({report.rate_reason}), "
        f"digest {made.digest[:12]} ({report.seconds:.1f} s, {report.decoded} decoded)"
    )
    for note in report.notes:
        say(f"note: {note}")
    say(_next_commands(name, made.task, made.payload.domain))


@data.command("describe")
@click.argument("name")
@click.option("--html", type=click.Path(path_type=Path), default=None, help="Also write a page with plots.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A view of the labels, such as data.labels=one_against_rest data.labels.target=dog.",
)
@click.pass_context
def data_describe(ctx: click.Context, name: str, html: Path | None, assignments: tuple[str, ...]) -> None:
    """Counts by class, fold, split and family, durations, sample rates, near duplicates, baselines."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.data.remarks import corpus_notes
    from audio_cls.report.description import describe
    from audio_cls.runs.preparation import open_view

    corpus = open_view(workspace_of(ctx), name, dict(map(parse_assignment, assignments)))
    for part in describe(corpus).tables():
        table(part.title, part.columns, part.rows)
    for note in corpus_notes(corpus):
        say(f"note: {note}")
    if html:
        from audio_cls.report.data import data_report

        html.parent.mkdir(parents=True, exist_ok=True)
        data_report(corpus, html)
        say(f"wrote {html}")


@data.command("show")
@click.argument("name")
@click.argument("clip")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Settings of a further spectrogram, such as features.n_mels=128; several with spaces between. Repeatable.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), default=None, help="The file. Default: reports/NAME-CLIP.html."
)
@click.pass_context
def data_show(ctx: click.Context, name: str, clip: str, settings: tuple[str, ...], html: Path | None) -> None:
    """One page about the clip CLIP of the corpus NAME: sound, spectrograms of several settings, effects of augmentations."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.core.errors import UserError, did_you_mean
    from audio_cls.report.clip_page import clip_page
    from audio_cls.runs.page_data import page_path
    from audio_cls.runs.preparation import open_corpus
    from audio_cls.runs.resolve import features_to_draw

    workspace = workspace_of(ctx)
    corpus = open_corpus(workspace, name)
    if clip not in corpus.ids:
        raise UserError(f"{name}: no clip {clip!r} in this corpus of {len(corpus)}.{did_you_mean(clip, corpus.ids)}")
    path = page_path(workspace, f"{corpus.name}-{clip}"[:80], html)
    variants = []
    for text in ("", *settings):
        changes = dict(parse_assignment(part) for part in text.split())
        variants.append((text or "as left to the data", features_to_draw(corpus, changes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    clip_page(corpus, corpus.ids.index(clip), variants, path)
    say(f"wrote {path}")


@data.command("verify")
@click.argument("name")
@click.pass_context
def data_verify(ctx: click.Context, name: str) -> None:
    """Check a corpus against its checksums."""
    from audio_cls.runs.preparation import open_corpus

    corpus = open_corpus(workspace_of(ctx), name)
    with progress(f"verifying {name}") as tell:
        corpus.verify(tell)
    say(f"{name}: every clip matches its checksum")
