"""Augmentations: batched, random for each clip, deterministic by the generator, with a declared input domain."""

from audio_cls.components.augment.background import Background, BackgroundNoise
from audio_cls.components.augment.band_gain import BandGain
from audio_cls.components.augment.base import Augment, Augmentation, Augmenter, Mixer
from audio_cls.components.augment.choice import Built, Choose, build_augment, chosen_members
from audio_cls.components.augment.equalizer import Equalizer
from audio_cls.components.augment.mix import CutMix, Mixup
from audio_cls.components.augment.sequence import AveragePositives, Offset
from audio_cls.components.augment.spectrogram import Masks, SpecAugment, TimeRoll
from audio_cls.components.augment.tempo import PitchShift, Speed, TimeStretch
from audio_cls.components.augment.warp import Warp
from audio_cls.components.augment.waveform import Gain, Noise, TimeShift
from audio_cls.components.augment.waveform_mix import BetweenClass

__all__ = [
    "Augment",
    "Augmentation",
    "Augmenter",
    "AveragePositives",
    "Background",
    "BackgroundNoise",
    "BandGain",
    "BetweenClass",
    "Built",
    "Choose",
    "CutMix",
    "Equalizer",
    "Gain",
    "Masks",
    "Mixer",
    "Mixup",
    "Noise",
    "Offset",
    "PitchShift",
    "SpecAugment",
    "Speed",
    "TimeRoll",
    "TimeShift",
    "TimeStretch",
    "Warp",
    "build_augment",
    "chosen_members",
]
