"""Write a corpus of waveforms in the layout of another published data set: pictures, AudioSet's embeddings, audio in Parquet.

>>> from audio_cls.runs.conversion import Conversion
>>> sorted(Conversion.members())
['embeddings', 'parquet', 'pictures']
"""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from audio_cls.components.features import FeatureExtractor, LogMel
from audio_cls.core.config import Component
from audio_cls.core.errors import UserError, choose
from audio_cls.data.corpus import Corpus
from audio_cls.data.folders import begin_folder
from audio_cls.data.writing.audio_table import write_audio_tables
from audio_cls.data.writing.audioset import quantise, write_audioset
from audio_cls.data.writing.carried import not_carried
from audio_cls.data.writing.pictures import FOLD_PATTERN, GROUP_PATTERN, write_pictures
from audio_cls.runs.resolve import features_to_draw

__all__ = ["Conversion", "Converted", "convert"]

Progress = Callable[[int, int, str], None]
_SETTINGS = "conversion.json"
_VECTOR = 128  # values of one of AudioSet's vectors
_MOST_PATCHES = 8000  # that a PCA is fitted to: 200 MB of them


@dataclass(frozen=True)
class Converted:
    """A folder that was written: `options` are what `data prepare` needs to read it, `notes` what to know of it."""

    folder: Path
    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def command(self, name: str) -> str:
        """Return the command that prepares the folder as a corpus."""
        words = [str(self.folder), "--name", name, *(w for option in self.options for w in ("--set", option))]
        return f"audio-cls data prepare {shlex.join(words)}"


class Conversion(Component, family=True):
    """A layout that a corpus of waveforms can be written in. Its fields are the options of `data convert` (`--set KEY=VALUE`)."""

    @abstractmethod
    def write(self, corpus: Corpus, folder: Path, progress: Progress) -> Converted:
        """Write the clips of a corpus to a folder that was begun.

        Raises:
            UserError: for a corpus that the layout cannot hold.
        """
        raise NotImplementedError


def convert(
    corpus: Corpus, kind: str, folder: Path, changes: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> Converted:
    """Write a corpus of waveforms in another layout. Interrupted, the same call goes on.

    Args:
        kind: "pictures", "embeddings" or "parquet".
        folder: absent, empty, or begun by the same call.
        changes: options of the layout by dotted keys, such as `{"features.n_mels": 64}`.
        progress: is called with (done, total, what).

    Raises:
        UserError: for an unknown layout or option, a folder that holds something else, a corpus that does not fit.
    """
    member = choose(Conversion.members(), kind, f"layout {kind!r} to convert to")
    config = member().override(changes or {})
    if not corpus.payload.is_waveform:
        raise UserError(f"{corpus.name!r} holds {corpus.payload.describe()}: only waveforms can be converted")
    begin_folder(folder, _SETTINGS, f"{corpus.digest}\n{config.to_json()}\n", "a conversion")
    return config.write(corpus, folder, progress or (lambda done, total, what: None))


class ToPictures(Conversion, kind="pictures"):
    """A grey PNG of each clip's log-mel in a folder for its class: time to the right, low frequencies at the bottom."""

    features: LogMel = LogMel(n_mels=128)
    """The spectrogram; n_mels is the height of the pictures, what is auto follows the corpus."""
    range_db: Annotated[float, Field(gt=0, le=200)] = 80.0
    """From black to white, in dB below the loudest value of each clip."""

    def write(self, corpus: Corpus, folder: Path, progress: Progress) -> Converted:
        features = features_to_draw(corpus, {"features": self.features})
        extractor = features.build_for(corpus.payload)

        def pixels(clip: int) -> NDArray[np.uint8]:
            mel = _log_mel(corpus, clip, extractor)
            shades = 255 * (1 + (mel - mel.max()) / self.range_db)
            return np.rint(np.clip(shades, 0, 255)).astype(np.uint8)[::-1]

        write_pictures(corpus, pixels, folder, progress)
        options = [f"columns_per_second={corpus.sample_rate / extractor.hop_length:.6g}"]
        options += [f"fold_pattern={FOLD_PATTERN}"] if (corpus.folds >= 0).any() else []
        options += [f"group_pattern={GROUP_PATTERN}"] if any(g is not None for g in corpus.groups) else []
        held = {"folds", "groups", *(["splits"] if all(corpus.splits) else [])}
        return Converted(folder, tuple(options), _notes(not_carried(corpus, held)))


class ToEmbeddings(Conversion, kind="embeddings"):
    """AudioSet's TFRecord files of 128 bytes a row, made by a PCA of log-mel patches of 0.96 s in the place of VGGish.

    64 bands from 125 to 7,500 Hz, windows of 25 ms every 10 ms and whitened, quantised components as in S. Hershey et al., "CNN
    architectures for large-scale audio classification" (ICASSP 2017); no network. The PCA is fitted, without labels, to the clips that
    are not in the evaluation set.
    """

    rows: Annotated[int, Field(ge=1, le=10)] = 10
    """Patches of a clip, spread evenly from its begin to its end; one of a clip of up to 0.96 s, filled with silence."""
    test_fold: Annotated[int, Field(ge=0)] | None = None
    """The fold that becomes the evaluation set of a corpus without a test split; none takes the last."""

    def write(self, corpus: Corpus, folder: Path, progress: Progress) -> Converted:
        evaluation, why = self._evaluation(corpus)
        extractor = _vggish_features(corpus.sample_rate).build(corpus.sample_rate)
        mean, axes = self._fit(corpus, np.flatnonzero(~evaluation), extractor)

        def rows(clip: int) -> NDArray[np.uint8]:
            return quantise((_patches(corpus, clip, extractor, self.rows) - mean) @ axes)

        write_audioset(corpus, rows, evaluation, folder, progress)
        lost = not_carried(corpus, {"splits", "groups"})
        return Converted(folder, (), _notes(why, lost, "clips.csv says which clip each record is"))

    def _evaluation(self, corpus: Corpus) -> tuple[NDArray[np.bool_], str]:
        tested = np.asarray([split == "test" for split in corpus.splits])
        folds = sorted({int(fold) for fold in corpus.folds if fold >= 0})
        if self.test_fold is not None and self.test_fold not in folds:
            raise UserError(
                f"test_fold={self.test_fold}: {corpus.name!r} has the folds {', '.join(map(str, folds)) or 'none'}"
            )
        if tested.any() and self.test_fold is None:
            return tested, "the test split is the evaluation set"
        if not folds:
            return tested, "no evaluation set: the corpus has neither a test split nor folds"
        fold = folds[-1] if self.test_fold is None else self.test_fold
        return corpus.folds == fold, f"fold {fold} is the evaluation set"

    def _fit(
        self, corpus: Corpus, clips: NDArray[np.int64], extractor: FeatureExtractor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mean (values,) and the whitening axes (values, 128) of the patches of some of these clips."""
        from sklearn.decomposition import PCA

        most = max(1, _MOST_PATCHES // self.rows)
        looked_at = clips[np.linspace(0, len(clips) - 1, min(most, len(clips))).astype(int)] if len(clips) else clips
        found = [_patches(corpus, int(clip), extractor, self.rows) for clip in looked_at]
        n = sum(map(len, found))
        if n <= _VECTOR:
            raise UserError(
                f"{corpus.name!r}: its {len(clips)} clips outside the evaluation set give {n} patches of 0.96 s; a PCA to {_VECTOR} "
                f"values needs more than {_VECTOR}"
            )
        pca = PCA(_VECTOR, whiten=True, svd_solver="randomized", random_state=0).fit(np.concatenate(found))
        axes = pca.components_.T / np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
        return pca.mean_.astype(np.float32), axes.astype(np.float32)


class ToParquet(Conversion, kind="parquet"):
    """Parquet shards of 16 bit WAV with the columns of UrbanSound8K's mirror at Hugging Face."""

    clips_per_file: Annotated[int, Field(ge=1)] = 1000
    """Clips of a shard."""

    def write(self, corpus: Corpus, folder: Path, progress: Progress) -> Converted:
        write_audio_tables(corpus, folder, self.clips_per_file, progress)
        return Converted(folder, (), _notes(not_carried(corpus, {"folds", "splits", "groups"})))


def _notes(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)


def _log_mel(corpus: Corpus, clip: int, extractor: FeatureExtractor) -> NDArray[np.float32]:
    """Return (n_mels, frames) in dB."""
    with torch.inference_mode():
        out: NDArray[np.float32] = extractor(torch.from_numpy(corpus.waveform(clip))[None])[0, 0].numpy()
    return out


def _vggish_features(sample_rate: int) -> LogMel:
    """Return VGGish's spectrogram, as much of it as there is at this rate; log(power + 0.01) has the floor of 16 bit noise."""
    top = min(7500.0, sample_rate / 2)
    window, hop = round(0.025 * sample_rate), round(0.010 * sample_rate)
    return LogMel(n_mels=64, f_min=125, f_max=top, win_length=window, hop_length=hop, floor=1e-4)


def _patches(corpus: Corpus, clip: int, extractor: FeatureExtractor, rows: int) -> NDArray[np.float32]:
    """Return (rows, 64 * 96): log-mel patches of 0.96 s, evenly spaced over the clip."""
    mel, frames = _log_mel(corpus, clip, extractor), 96
    last = mel.shape[1] - frames
    if last <= 0:
        silence = np.full((len(mel), max(0, -last)), mel.min(), np.float32)
        return np.concatenate([mel[:, :frames], silence], axis=1).reshape(1, -1)
    starts = np.linspace(0, last, rows).round().astype(int)
    return np.stack([mel[:, at : at + frames].ravel() for at in starts])
