"""Studies: the only package that knows Optuna. Importing it loads neither Optuna nor PyTorch."""

from audio_cls.queue.seam import Objective, Outcome, TrialContext
from audio_cls.study.declaration import (
    TPE,
    Median,
    NoPruning,
    Percentile,
    PrunerConfig,
    RandomSearch,
    SamplerConfig,
    Study,
    load_study_file,
)

__all__ = [
    "TPE",
    "Median",
    "NoPruning",
    "Objective",
    "Outcome",
    "Percentile",
    "PrunerConfig",
    "RandomSearch",
    "SamplerConfig",
    "Study",
    "TrialContext",
    "load_study_file",
]
