"""Metrics, rankings, and the statistics of comparisons: intervals, paired tests, verdicts. Law: arrays in, figures out; only `core` below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.metrics.base import Metric as Metric
    from audio_cls.metrics.base import check_metric as check_metric
    from audio_cls.metrics.baselines import Judgement as Judgement
    from audio_cls.metrics.baselines import judge as judge
    from audio_cls.metrics.bootstrap import Interval as Interval
    from audio_cls.metrics.bootstrap import figure_intervals as figure_intervals
    from audio_cls.metrics.classification import Evaluation as Evaluation
    from audio_cls.metrics.classification import evaluate as evaluate
    from audio_cls.metrics.paired import compare as compare
    from audio_cls.metrics.predictions import Predictions as Predictions
    from audio_cls.metrics.published import Published as Published
    from audio_cls.metrics.verdict import Verdict as Verdict
    from audio_cls.metrics.verdict import verdicts as verdicts

__getattr__, __dir__, __all__ = face(__name__, __file__)
