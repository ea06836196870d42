"""The family of data sources: each reads one layout of files into a table of clips."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from audio_cls.core.config import Component
from audio_cls.data.manifest import Manifest

__all__ = ["Source"]


class Source(Component, family=True):
    """A layout of a data set. Its fields are the options of `data prepare` (`--set KEY=VALUE`).

    order: of detection, the lowest first; the user's own come before those of audio_cls.
    looks_for: what `detect` looks for, as the message of an unknown layout says it.
    """

    order: ClassVar[int] = 0
    looks_for: ClassVar[str] = ""

    @abstractmethod
    def detect(self, path: Path) -> bool:
        """Whether this layout is at `path`, a folder or a file that exists.

        Raises:
            UserError: for a path that this layout would misread.
        """
        raise NotImplementedError

    @abstractmethod
    def read(self, path: Path) -> Manifest:
        """The clips at `path`. It trusts nothing: what it cannot make sense of is refused; whether the audio can be used is found out
        when it is packed.

        Raises:
            UserError: by file and row.
        """
        raise NotImplementedError
