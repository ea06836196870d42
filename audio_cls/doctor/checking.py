"""Run the checks of a part's family on it, and turn what happens into findings."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from audio_cls.components.augment import Augmentation
from audio_cls.components.features import Features
from audio_cls.components.losses import Loss
from audio_cls.components.models import Model
from audio_cls.components.optim import Optimizer, Schedule
from audio_cls.components.sampling import Sampling
from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.data.sources.base import Source
from audio_cls.doctor import augmentations, features, losses, models, training_parts
from audio_cls.doctor import metrics_and_sources as others
from audio_cls.doctor.findings import Check, Finding, Skipped, Wrong
from audio_cls.metrics.base import Metric

__all__ = ["FAMILIES", "check_part", "checks_of"]

FAMILIES: dict[type[Component], dict[str, Check]] = {
    Model: models.CHECKS,
    Loss: losses.CHECKS,
    Augmentation: augmentations.CHECKS,
    Features: features.CHECKS,
    Sampling: training_parts.SAMPLING_CHECKS,
    Optimizer: training_parts.OPTIMIZER_CHECKS,
    Schedule: training_parts.SCHEDULE_CHECKS,
    Metric: others.METRIC_CHECKS,
    Source: others.SOURCE_CHECKS,
}
"""Family -> its checks by name."""


def checks_of(part: type[Component]) -> dict[str, Check]:
    """Return the checks of a part's family by name; empty for a family that has none."""
    return next((checks for family, checks in FAMILIES.items() if issubclass(part, family)), {})


def check_part(
    part: type[Component], *, settings: dict[str, Any] | None = None, only: Collection[str] | None = None
) -> list[Finding]:
    """Run the checks of a part's family. One that fails does not keep the others from being run.

    Args:
        part: a registered class, such as a model.
        settings: keys of the part; fields without a default must be given.
        only: names of checks; all unless given.
    """
    name = _name(part)
    try:
        config = part.parse(settings or {}, name)
    except UserError as error:
        advice = "give each field a default: commands name a part by its kind alone"
        return [Finding(name, "defaults", "wrong", str(error), advice, _file(part))]
    checks = {key: check for key, check in checks_of(part).items() if only is None or key in only}
    findings: list[Finding] = []
    for key, check in checks.items():
        found = _run(name, key, check, config, _file(part))
        first = next((f for f in findings if f.status == "wrong" and f.what == found.what), None)
        findings.append(found if first is None else Finding(name, key, "skipped", f"as {first.check}"))
    return findings


def _run(name: str, key: str, check: Check, config: Component, file: str) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(config)
    except Skipped as reason:
        return Finding(name, key, "skipped", str(reason))
    except Wrong as wrong:
        return Finding(name, key, "wrong", wrong.what, wrong.advice, file)
    except Exception as error:
        what = f"it raises {type(error).__name__}: {' '.join(str(error).split())[:300] or 'without a message'}"
        advice = "the same happens in training"
        return Finding(name, key, "wrong", what, advice, _place(error, file))
    return Finding(name, key, "ok")


def _name(part: type[Component]) -> str:
    family = next((family.__name__.lower() for family in FAMILIES if issubclass(part, family)), "part")
    return f"{family} {part.kind}"


def _file(part: type[Component]) -> str:
    import inspect

    try:
        _, line = inspect.getsourcelines(part)
        return f"{inspect.getsourcefile(part)}:{line}"
    except (OSError, TypeError):  # typed into a notebook
        return part.__module__


def _place(error: BaseException, file: str) -> str:
    """Return the last line of the part's own file that an error came through, else the part's own."""
    own = file.rpartition(":")[0]
    lines = [f for f in traceback.extract_tb(error.__traceback__) if own and Path(f.filename) == Path(own)]
    return f"{own}:{lines[-1].lineno}" if lines else file
