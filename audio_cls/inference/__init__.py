"""A trained run in use: labels for audio files. Law: it needs a run's artifacts, not its corpus, and trains through `runs` only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.inference.files import audio_files as audio_files
    from audio_cls.inference.handle import Run as Run
    from audio_cls.inference.handle import list_runs as list_runs
    from audio_cls.inference.handle import open_run as open_run
    from audio_cls.inference.handle import train as train
    from audio_cls.inference.labeller import Labelled as Labelled
    from audio_cls.inference.labeller import Labeller as Labeller
    from audio_cls.inference.labeller import WindowScore as WindowScore
    from audio_cls.inference.opening import open_labeller as open_labeller
    from audio_cls.inference.opening import open_labellers as open_labellers
    from audio_cls.inference.run_labeller import RunLabeller as RunLabeller
    from audio_cls.inference.streaming import read_blocks as read_blocks

__getattr__, __dir__, __all__ = face(__name__, __file__)
