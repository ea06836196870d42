"""Contract checks of parts: what a model, a loss, an augmentation ... must hold so that training, resuming and comparing work.

The tests of audio_cls run them on every part that it has, `audio-cls doctor FILE.py` on a user's own. Law: it stands above every
family that it checks, and reads and writes no workspace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.doctor.checking import check_part as check_part
    from audio_cls.doctor.checking import checks_of as checks_of
    from audio_cls.doctor.findings import Finding as Finding

__getattr__, __dir__, __all__ = face(__name__, __file__)
