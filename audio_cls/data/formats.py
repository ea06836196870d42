"""How samples are stored in the original files of a corpus."""

from __future__ import annotations

from collections import Counter

import numpy as np

from audio_cls.data.corpus import Corpus

__all__ = ["sample_formats"]

_LOOKED_AT = 200


def sample_formats(corpus: Corpus) -> dict[str, int]:
    """Return libsndfile's name of the sample format ("PCM_16", "VORBIS") -> files, the most frequent first.

    Looks at the headers of up to 200 files, spread evenly over the corpus, that are still where they were when it was prepared; empty for
    a corpus of no waveforms or of audio in tables.
    """
    import soundfile

    if not corpus.payload.is_waveform:
        return {}
    clips = corpus.clips
    found = Counter[str]()
    for i in np.unique(np.linspace(0, len(clips) - 1, _LOOKED_AT).astype(int)).tolist():
        if clips[i].position is not None:
            continue
        try:
            with clips[i].path.open("rb") as file:  # by its handle: a name need not be UTF-8
                found[soundfile.info(file).subtype] += 1
        except (OSError, RuntimeError):  # moved, or read by a decoder of one's own
            continue
    return dict(found.most_common())
