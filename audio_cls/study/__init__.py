"""Studies: the only package that knows Optuna. Importing it loads neither Optuna nor PyTorch."""

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
from audio_cls.study.seam import Objective, Outcome, TrialContext

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
