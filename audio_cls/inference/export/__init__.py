"""Trained runs as files that need no audio_cls: a `torch.export` program, an ONNX model, class names, a card, a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.inference.export.folder import Exported as Exported
    from audio_cls.inference.export.folder import export_run as export_run

__getattr__, __dir__, __all__ = face(__name__, __file__)
