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
from audio_cls.data.codecs.base import Codec
from audio_cls.data.sources.base import Source
from audio_cls.data.windows import EvaluationWindows
from audio_cls.doctor import augmentations, export, features, figures, losses, models, reading, settings, training_parts
from audio_cls.doctor import metrics as metric_checks
from audio_cls.doctor.findings import Check, Finding, Skipped, Wrong, advice_on, first_line
from audio_cls.metrics.base import Metric
from audio_cls.report.run_figures import Figure

__all__ = ["FAMILIES", "check_part", "checks_of"]

_MEND = "mend first: "
FAMILIES: dict[type[Component], dict[str, Check]] = {
    Model: {**models.CHECKS, **export.MODEL_CHECKS},
    Loss: losses.CHECKS,
    Augmentation: augmentations.CHECKS,
    Features: {**features.CHECKS, **export.FEATURE_CHECKS},
    Sampling: training_parts.SAMPLING_CHECKS,
    Optimizer: training_parts.OPTIMIZER_CHECKS,
    Schedule: training_parts.SCHEDULE_CHECKS,
    Metric: metric_checks.CHECKS,
    Figure: figures.CHECKS,
    Source: reading.SOURCE_CHECKS,
    Codec: reading.CODEC_CHECKS,
    EvaluationWindows: reading.WINDOW_CHECKS,
}
"""Family -> its own checks by name. Every part, of these families or of another, has those of `settings` as well."""
_AFTER: dict[type[Component], dict[str, tuple[str, ...]]] = {
    Model: models.AFTER,
    Loss: losses.AFTER,
    Augmentation: augmentations.AFTER,
    Features: dict.fromkeys(("values", "determinism", "no training", "reach", "onnx"), ("shape",)),
    Sampling: {"epochs": ("rows",)},
}
"""Family -> check -> checks that must pass before it tells anything."""


def checks_of(part: type[Component]) -> dict[str, Check]:
    """Return the checks that a part must pass, by name."""
    own = next((checks for family, checks in FAMILIES.items() if issubclass(part, family)), {})
    return {**settings.CHECKS, **own}


def check_part(
    part: type[Component], *, keys: dict[str, Any] | None = None, only: Collection[str] | None = None
) -> list[Finding]:
    """Run the checks of a part. One that fails does not keep the others from being run.

    Args:
        part: a registered class, such as a model.
        keys: of the part, with their values; fields without a default must be given.
        only: names of checks; all unless given.
    """
    name = _name(part)
    try:
        config = part.parse(keys or {}, name)
    except UserError as error:
        advice = "give each field a default: commands name a part by its kind alone"
        return [Finding(name, "defaults", "wrong", str(error), advice, _file(part))]
    checks = {key: check for key, check in checks_of(part).items() if only is None or key in only}
    findings: list[Finding] = []
    after = next((order for family, order in _AFTER.items() if issubclass(part, family)), {})
    for key, check in checks.items():
        faulty = {f.check for f in findings if f.status == "wrong" or f.what.startswith(_MEND)}
        first_to_mend = next((other for other in after.get(key, ()) if other in faulty), None)
        if first_to_mend is not None:
            findings.append(Finding(name, key, "skipped", f"{_MEND}{first_to_mend}"))
            continue
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
        return Finding(name, key, "wrong", wrong.what, wrong.advice, _place(wrong, file))
    except Exception as error:
        return Finding(name, key, "wrong", f"it raises {first_line(error)}", advice_on(error), _place(error, file))
    return Finding(name, key, "ok")


def _name(part: type[Component]) -> str:
    family = part._family.__name__.lower() if part._family else "part"
    return f"{family} {part.kind}"


def _file(part: type[Component]) -> str:
    import inspect

    try:
        _, line = inspect.getsourcelines(part)
        return f"{inspect.getsourcefile(part)}:{line}"
    except (OSError, TypeError):  # typed into a notebook
        return part.__module__


def _place(error: BaseException | None, file: str) -> str:
    """Return the last line of the part's own file that an error, or what it was raised for, came through; else the part's own."""
    own = file.rpartition(":")[0]
    while own and error is not None:
        lines = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == Path(own)]
        if lines:
            return f"{own}:{lines[-1].lineno}"
        error = error.__cause__ or error.__context__
    return file
