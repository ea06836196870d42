"""The family `Source`: one member for each published layout, and which of them a path asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from audio_cls.core.config_text import Given, read_value, value_text
from audio_cls.core.errors import ConfigError, UserError, choices
from audio_cls.data.manifest import Manifest
from audio_cls.data.sources.audio_folder import AudioFolder
from audio_cls.data.sources.audio_table import AudioTable
from audio_cls.data.sources.audioset import AudioSet
from audio_cls.data.sources.base import Source
from audio_cls.data.sources.csv import CsvTable
from audio_cls.data.sources.esc50 import Esc50
from audio_cls.data.sources.fsd50k import Fsd50k
from audio_cls.data.sources.gtzan import Gtzan
from audio_cls.data.sources.pictures import PictureFolder
from audio_cls.data.sources.speech_commands import SpeechCommands
from audio_cls.data.sources.synthetic import Generated
from audio_cls.data.sources.tut2017 import Tut2017
from audio_cls.data.sources.urbansound8k import UrbanSound8K

__all__ = ["LAYOUTS", "AudioFolder", "CsvTable", "Esc50", "Generated", "Source", "detect", "read"]

_PUBLISHED = (AudioSet, Esc50, Fsd50k, Gtzan, SpeechCommands, Tut2017, UrbanSound8K)
LAYOUTS = tuple(member.kind for member in (*_PUBLISHED, AudioTable, Generated, CsvTable, AudioFolder, PictureFolder))
"""The layouts that come with audio_cls, in the order of detection: the most particular first."""


def read(path: Path | str, layout: str | None = None, **options: Any) -> Manifest:
    """Read a data set's clip table.

    Args:
        path: a folder, or a file that the layout knows.
        layout: a kind of `Source`; None finds out.
        options: the layout's own (`subset="esc10"` for esc50, ...).

    Raises:
        UserError: no such path, layout or option, or a fault in the data set's own tables.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    layout = detect(path) if layout is None else layout
    if layout not in Source.members():
        raise ConfigError(f"{layout!r} is no layout. {choices(layout, Source.members())}", [("source", layout)])
    member = Source.members()[layout]
    for name, value in options.items():
        if name not in member.model_fields:
            raise UserError(f"layout {layout!r} has no option {name!r}. {choices(name, member.model_fields)}")
        if isinstance(value, Given):
            options[name] = read_value(value, member.model_fields[name].annotation)
    source = member.parse(options, f"layout {layout}")
    return replace(source.read(path), options=_changed(source))


def detect(path: Path) -> str:
    """The layout of a path.

    Raises:
        UserError: none fits; says what was looked for. Or it is a published layout that has no reader.
    """
    members = sorted(Source.members().values(), key=lambda member: (member.order, member.kind))
    for member in members:
        if _defaults(member) and member().detect(path):
            return member.kind
    looked = [f"{member.looks_for} ({member.kind})" if member.looks_for else member.kind for member in members]
    raise UserError(
        f"{path}: no known layout. Looked for {', '.join(looked)}. Say which with layout=...: {', '.join(Source.members())}"
    )


def _changed(source: Source) -> dict[str, str]:
    """Return the options of a layout that are not at their defaults, as `--set KEY=VALUE` takes them."""
    member = type(source)
    defaults = member().flatten() if _defaults(member) else {}
    changed = {key: value for key, value in source.flatten().items() if key not in defaults or value != defaults[key]}
    return {key: value_text(value) for key, value in changed.items() if key != "kind"}


def _defaults(member: type[Source]) -> bool:
    """Whether a layout can be tried without options."""
    return not any(field.is_required() for field in member.model_fields.values())
