"""From files to a corpus in a workspace: generated sounds, or a data set of the user's.

>>> import audio_cls as ac
>>> folder = ac.generate("sounds-wav", n_clips=40, clip_seconds=0.5, classes=("rain", "siren"))
>>> report = ac.prepare(folder, name="two-sounds", progress=False)
>>> len(report.corpus), report.corpus.classes
(40, ('rain', 'siren'))
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from audio_cls.core import notices
from audio_cls.core.names import check_name
from audio_cls.core.workspace import Workspace
from audio_cls.data import packing, sources
from audio_cls.data.name_groups import with_groups
from audio_cls.data.sources import synthetic

__all__ = ["generate", "prepare"]


def generate(directory: Path | str, *, workers: int | None = None, progress: bool = False, **settings: Any) -> Path:
    """Make a data set of procedurally generated sounds, as `audio-cls data generate` does; returns its folder.

    Args:
        directory: the folder, absent, empty, or of the same settings (an interrupted call continues).
        workers: processes; one a core unless given.
        progress: show a bar.
        settings: of the generator, such as `n_clips=2000`, `imbalance=10`, `task="multilabel"`.

    Raises:
        UserError: for a setting that does not hold, or a folder of something else.
    """
    config = synthetic.Synthetic().override(settings)
    with notices.shown(progress), notices.progress("generating") as tell:
        return synthetic.generate(config, Path(directory), workers=workers, progress=tell)


def prepare(
    source: Path | str,
    *,
    name: str,
    workspace: Workspace | Path | str | None = None,
    layout: str | None = None,
    sample_rate: int | Literal["auto"] = "auto",
    on_bad: Literal["refuse", "skip"] = "refuse",
    workers: int | None = None,
    progress: bool = True,
    groups_from_names: bool | str = False,
    **options: Any,
) -> packing.PrepareReport:
    """Decode, mix to mono, resample and pack a data set once, as `audio-cls data prepare` does. Interrupted, it continues.

    Args:
        source: a folder, or a CSV file.
        name: of the corpus.
        workspace: its folder; AUDIO_CLS_WORKSPACE or the current folder unless given.
        layout: "esc50", "fsd50k", "audio_folder", "csv", ... (docs/data.md); recognised by what is there unless given.
        sample_rate: hertz; "auto" is that of most files, 16000 at most.
        on_bad: what a broken, empty, silent or mislabelled clip does.
        workers: processes; one a core unless given.
        progress: show a bar.
        groups_from_names: take the groups (recordings, speakers) that the names of the files suggest, or a regular expression whose
            first group is the clip's group.
        options: `max_seconds` keeps at most so much of each clip, `trim_db` cuts off silence at both ends of it, so many decibels below
            its loudest part; others are the layout's, such as `task="multilabel"`,
            `subset="esc10"`.

    Raises:
        UserError: for a source, layout or option that does not hold, or a clip that is refused.
    """
    check_name(name, "a corpus")
    max_seconds = options.pop("max_seconds", None)
    trim_db = options.pop("trim_db", None)
    manifest = with_groups(replace(sources.read(source, layout, **options), name=name), groups_from_names)
    with notices.shown(progress), notices.progress(f"preparing {name}") as tell:
        return packing.prepare(
            manifest,
            Workspace.of(workspace).corpora / name,
            sample_rate=sample_rate,
            workers=workers,
            on_bad=on_bad,
            max_seconds=max_seconds,
            trim_db=trim_db,
            progress=tell,
        )
