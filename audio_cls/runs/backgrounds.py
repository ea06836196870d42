"""The corpora whose clips are mixed into training clips as background noise (`augment.background`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audio_cls.components.augment import BackgroundNoise
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Chain

__all__ = ["give_backgrounds"]


def give_backgrounds(chain: Chain, corpus: Corpus, open_corpus: Callable[[str], Corpus]) -> None:
    """Give the background noise of a chain the corpus that its experiment names.

    Args:
        corpus: that is trained on.
        open_corpus: opens a prepared corpus by its name or path.

    Raises:
        UserError: for no name, a corpus that is not there, is none of waveforms, has another sample rate, or shares clips with
            `corpus`.
    """
    for config, op in chain.augment.members:
        if not isinstance(op, BackgroundNoise):
            continue
        name = op.config.corpus
        if not name:
            raise UserError("augment.background.corpus is missing: name a prepared corpus whose clips are the noise")
        try:
            noise = open_corpus(name)
        except UserError as error:
            raise UserError(f"augment.{config.kind}.corpus: {error}") from None
        _check(noise, name, corpus)
        op.recordings = noise


def _check(noise: Corpus, name: str, corpus: Corpus) -> None:
    where = f"augment.background.corpus={name}"
    if not noise.payload.is_waveform:
        raise UserError(f"{where}: it holds {noise.payload.describe()}, expected waveforms")
    if noise.sample_rate != corpus.sample_rate:
        raise UserError(
            f"{where}: it is packed at {noise.sample_rate} Hz, the training corpus {corpus.name!r} at {corpus.sample_rate} Hz: "
            f"prepare it again with --sample-rate {corpus.sample_rate}"
        )
    if not len(noise):
        raise UserError(f"{where}: it holds no clips")
    shared = _shared(noise, corpus)
    if shared:
        raise UserError(
            f"{where}: {shared} of its {len(noise)} clips are also in the training corpus {corpus.name!r}, whose validation and "
            "test clips would be heard in training: choose another corpus"
        )


def _shared(noise: Corpus, corpus: Corpus) -> int:
    """Return how many clips of one corpus have the samples of a clip of another: equal lengths and checksums."""
    base = corpus.viewed[0] if corpus.viewed is not None else corpus
    ours, theirs = (np.stack([c.lengths, c.crcs], 1) for c in (base, noise))
    known = {tuple(row) for row in ours.tolist()}
    return sum(tuple(row) in known for row in theirs.tolist())
