"""What the settings of every part must hold: a run that is read again must be the run that was recorded."""

from __future__ import annotations

import json
from typing import Any

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.doctor.findings import Check, Wrong, expect

__all__ = ["CHECKS"]


def check_settings(config: Component) -> None:
    """Settings survive JSON, and have the same digest then."""
    try:
        text = json.dumps(config.to_dict())
    except (TypeError, ValueError) as error:
        raise Wrong(
            f"its settings cannot be written as JSON: {error}",
            "use numbers, texts, truth values, tuples of these, or None in fields; a path is a text",
        ) from None
    try:
        again: Any = type(config).parse(json.loads(text))
    except UserError as error:
        raise Wrong(
            f"its own settings are refused when they are read again: {error}", "accept in a validator what it returns"
        ) from None
    changed = [key for key in again.flatten() if again.flatten()[key] != config.flatten().get(key)]
    expect(
        again == config and again.digest() == config.digest(),
        f"read again from a record, its settings are others: {', '.join(changed) or 'another kind'}",
        "let a validator leave its own results as they are: it runs each time that a run is read",
    )


CHECKS: dict[str, Check] = {"settings": check_settings}
