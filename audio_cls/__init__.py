"""audio_cls: search, train, track and compare audio classifiers."""

__version__ = "0.1.0"
