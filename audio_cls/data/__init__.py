"""From published layouts to arrays: sources -> manifest -> packed corpus -> splits. Law: a corpus is written once, and knows nothing of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.data.corpus import Corpus as Corpus
    from audio_cls.data.making import generate as generate
    from audio_cls.data.making import prepare as prepare
    from audio_cls.data.manifest import Clip as Clip
    from audio_cls.data.manifest import Manifest as Manifest
    from audio_cls.data.splits import Split as Split

__getattr__, __dir__, __all__ = face(__name__, __file__)
