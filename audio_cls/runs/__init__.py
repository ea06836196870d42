"""One experiment from start to record: prepared, trained, judged, stored; evaluated and compared later. Law: it knows one run at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.runs.comparison import RunComparison as RunComparison
    from audio_cls.runs.comparison import compare_runs as compare_runs
    from audio_cls.runs.evaluation import Scored as Scored
    from audio_cls.runs.evaluation import score_run as score_run
    from audio_cls.runs.objective import Record as Record
    from audio_cls.runs.objective import run_experiment as run_experiment
    from audio_cls.runs.outcome import Outcome as Outcome
    from audio_cls.runs.outcome import State as State
    from audio_cls.runs.page_data import run_page as run_page
    from audio_cls.runs.preparation import Prepared as Prepared
    from audio_cls.runs.preparation import Runtime as Runtime
    from audio_cls.runs.preparation import open_corpus as open_corpus
    from audio_cls.runs.preparation import prepare_run as prepare_run
    from audio_cls.runs.resolve import Resolved as Resolved
    from audio_cls.runs.scores import read_predictions as read_predictions

__getattr__, __dir__, __all__ = face(__name__, __file__)
