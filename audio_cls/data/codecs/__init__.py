"""The family `Codec`: one member for each format of files, each of which turns a clip into rows."""

from __future__ import annotations

from audio_cls.data.codecs.audio_bytes import AudioBytes
from audio_cls.data.codecs.base import Codec, Reader, Rows
from audio_cls.data.codecs.pictures import Pictures
from audio_cls.data.codecs.sequence_example import SequenceExamples

__all__ = ["AudioBytes", "Codec", "Pictures", "Reader", "Rows", "SequenceExamples"]
