"""Pretrained weights: how they are named, read, matched with a model, frozen, and how fast their blocks learn."""

from audio_cls.components.weights.base import FileWeights, Weights
from audio_cls.components.weights.blocks import Block, blocks_of, frozen_modules, parameters_to_train
from audio_cls.components.weights.files import read_tensors
from audio_cls.components.weights.matching import Match, load_weights

__all__ = [
    "Block",
    "FileWeights",
    "Match",
    "Weights",
    "blocks_of",
    "frozen_modules",
    "load_weights",
    "parameters_to_train",
    "read_tensors",
]
