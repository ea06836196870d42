"""Searches: their declaration, samplers, pruners, versions, transfer, page. Law: a search is the queue, with configurations drawn and pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.study.declaration import TPE as TPE
    from audio_cls.study.declaration import Grid as Grid
    from audio_cls.study.declaration import Median as Median
    from audio_cls.study.declaration import NoPruning as NoPruning
    from audio_cls.study.declaration import Percentile as Percentile
    from audio_cls.study.declaration import PrunerConfig as PrunerConfig
    from audio_cls.study.declaration import RandomSearch as RandomSearch
    from audio_cls.study.declaration import SamplerConfig as SamplerConfig
    from audio_cls.study.declaration import Study as Study
    from audio_cls.study.declaration import load_study_file as load_study_file
    from audio_cls.study.launches import Launch as Launch
    from audio_cls.study.launches import find_launch as find_launch
    from audio_cls.study.plain import objective as objective
    from audio_cls.study.running import SearchOutcome as SearchOutcome
    from audio_cls.study.running import run_search as run_search

__getattr__, __dir__, __all__ = face(__name__, __file__)
