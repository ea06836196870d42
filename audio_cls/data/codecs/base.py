"""The family of codecs: each turns the clips in files of one format into rows.

A codec is a value, so that it can be sent to workers and be part of what a packed clip depends on. Audio files need none:
they are read by `audio_cls.data.audio.load`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from audio_cls.core.config import Component
from audio_cls.core.payload import Payload

__all__ = ["Codec", "Part", "Reader", "Rows"]


@dataclass(frozen=True)
class Part:
    """Which part of a file is a clip, and what is asked of it.

    Attributes:
        position: of the clip in a file of many; None for the whole file.
        start, end: seconds, None for begin and end. For audio only.
        sample_rate: to resample to, in Hz. For audio only.
        max_seconds: what is longer is cut at its end; None keeps all.
        min_seconds: what is shorter is refused. For audio only.
        trim_db: silence at both ends that lies so many dB below the loudest part is cut off; None keeps it. For audio only.
    """

    position: int | None = None
    start: float | None = None
    end: float | None = None
    sample_rate: int | None = None
    max_seconds: float | None = None
    min_seconds: float = 0.0
    trim_db: float | None = None


@dataclass(frozen=True)
class Rows:
    """A decoded clip: `values` (n, *row) of the payload's type, and facts for the index (of audio: rate, channels, gain)."""

    values: NDArray[Any]
    facts: dict[str, Any]


class Reader(Protocol):
    """An open file."""

    def read(self, part: Part) -> Rows:
        """Return one clip.

        Raises:
            BadAudio: for a clip that cannot be used; the message is the reason.
        """

    def close(self) -> None: ...


class Codec(Component, family=True):
    """How clips are read from files of one format. Its fields are what the decoded rows depend on."""

    clips_per_job: ClassVar[int] = 32
    """How many clips of one file a worker decodes at a time, after opening it once."""
    reads_audio: ClassVar[bool] = False
    """Whether its rows are samples of a waveform, at a rate that is chosen when they are packed."""

    @abstractmethod
    def payload(self, sample_rate: int | None) -> Payload:
        """Return what its rows are; `sample_rate` is that of the corpus, for a codec that reads audio."""
        raise NotImplementedError

    @abstractmethod
    def open(self, path: Path) -> Reader:
        """Open a file for all its clips.

        Raises:
            BadAudio: missing, empty, or of another format.
        """
        raise NotImplementedError

    def source_rates(self, path: Path, positions: list[int | None]) -> list[int | None]:
        """Return the sample rates that clips of a file say they have, in Hz; None for one that says nothing."""
        return [None] * len(positions)
