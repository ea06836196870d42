"""audio_cls: search, train, track and compare audio classifiers.

    import audio_cls as ac, optuna

    base = ac.Experiment().override({"data.corpus": "mine", "model": "cnn4"})
    run = ac.train(base)                                     # tracked, resumable; run.metrics, run.figure("confusion")
    study = optuna.create_study(direction="maximize")
    study.optimize(ac.objective(base, space), n_trials=20)   # plain Optuna

Nothing is imported until it is used: `import audio_cls` loads neither PyTorch nor Optuna nor MLflow. What the user asked for and
cannot be done is an `ac.UserError`.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from audio_cls.core.lazy import face

__version__ = "0.1.0"

if TYPE_CHECKING:  # loaded when they are used
    from audio_cls.ablation.handle import Ablation as Ablation
    from audio_cls.ablation.handle import cross_validate as cross_validate
    from audio_cls.components.augment import Augmentation as Augmentation
    from audio_cls.components.features import FeatureExtractor as FeatureExtractor
    from audio_cls.components.features import Features as Features
    from audio_cls.components.losses import Loss as Loss
    from audio_cls.components.models import Model as Model
    from audio_cls.components.optim import Optimizer as Optimizer
    from audio_cls.components.optim import Schedule as Schedule
    from audio_cls.components.sampling import Sampling as Sampling
    from audio_cls.core.errors import RunFailed as RunFailed
    from audio_cls.core.errors import UserError as UserError
    from audio_cls.core.workspace import Workspace as Workspace
    from audio_cls.data.making import generate as generate
    from audio_cls.data.making import prepare as prepare
    from audio_cls.data.manifest import Clip as Clip
    from audio_cls.data.manifest import Manifest as Manifest
    from audio_cls.data.sources.base import Source as Source
    from audio_cls.experiment import Experiment as Experiment
    from audio_cls.inference.handle import Run as Run
    from audio_cls.inference.handle import compare as compare
    from audio_cls.inference.handle import list_runs as list_runs
    from audio_cls.inference.handle import open_run as open_run
    from audio_cls.inference.handle import train as train
    from audio_cls.inference.labeller import Labeller as Labeller
    from audio_cls.inference.opening import open_labeller as open_labeller
    from audio_cls.metrics.base import Metric as Metric
    from audio_cls.metrics.published import Published as Published
    from audio_cls.report.run_figures import Figure as Figure
    from audio_cls.runs.ensemble import ensemble as ensemble
    from audio_cls.study.declaration import TPE as TPE
    from audio_cls.study.declaration import Grid as Grid
    from audio_cls.study.declaration import Median as Median
    from audio_cls.study.declaration import NoPruning as NoPruning
    from audio_cls.study.declaration import Percentile as Percentile
    from audio_cls.study.declaration import RandomSearch as RandomSearch
    from audio_cls.study.handle import Study as Study
    from audio_cls.study.plain import objective as objective

_lazy, __dir__, __all__ = face(__name__, __file__)


def __getattr__(name: str) -> Any:
    # OpenMP's threads wait for each other in a busy loop by default: on cores that others use too, training took twenty times as
    # long. Read when PyTorch is loaded, which the next line may do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    value = _lazy(name)
    notices: Any = importlib.import_module("audio_cls.core.notices")
    notices.console = _console
    return value


def _console() -> Any:
    """The display of the console, for calls that show their progress."""
    return importlib.import_module("audio_cls.cli.console").ConsoleDisplay()
