"""Augmentations: batched, random for each clip, deterministic by the generator, with a declared input domain."""

from audio_cls.augment.base import Augment, Augmentation, Augmenter, Mixer
from audio_cls.augment.mix import Mixup
from audio_cls.augment.spectrogram import SpecAugment, TimeRoll
from audio_cls.augment.waveform import Gain, Noise, TimeShift

__all__ = [
    "Augment",
    "Augmentation",
    "Augmenter",
    "Gain",
    "Mixer",
    "Mixup",
    "Noise",
    "SpecAugment",
    "TimeRoll",
    "TimeShift",
]
