"""Write a corpus as Parquet shards with the columns of UrbanSound8K's mirror (`data.sources.audio_table` reads them)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus

__all__ = ["write_audio_tables"]

_ROW_GROUP = 100
_UNNAMED = "clips"  # shards of clips without a split


def write_audio_tables(
    corpus: Corpus, folder: Path, clips_per_file: int, progress: Callable[[int, int, str], None]
) -> None:
    """Write `data/SPLIT-00000-of-00002.parquet`: audio = {bytes, path} of 16 bit WAV, name, fold, group and class of each clip.

    Shards that are there are kept.

    Raises:
        UserError: for a corpus of no waveforms.
    """
    if not corpus.payload.is_waveform:
        raise UserError(
            f"{corpus.name!r} holds {corpus.payload.describe()}: audio in Parquet files is made of waveforms"
        )
    done = 0
    for split in sorted(set(corpus.splits), key=lambda name: name or ""):
        clips = [i for i, found in enumerate(corpus.splits) if found == split]
        shards = [clips[at : at + clips_per_file] for at in range(0, len(clips), clips_per_file)]
        for k, shard in enumerate(shards):
            path = folder / "data" / f"{split or _UNNAMED}-{k:05d}-of-{len(shards):05d}.parquet"
            if not path.exists():
                _write(corpus, shard, path)
            done += len(shard)
            progress(done, len(corpus), path.name)


def _write(corpus: Corpus, clips: Sequence[int], path: Path) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    schema = _schema(corpus)
    with pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer:
        for at in range(0, len(clips), _ROW_GROUP):
            writer.write_table(_table(corpus, clips[at : at + _ROW_GROUP], schema))
    os.replace(partial, path)


def _schema(corpus: Corpus) -> Any:
    import pyarrow as pa

    several = corpus.task == "multilabel"
    fields = [
        pa.field("audio", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("slice_file_name", pa.string()),
        pa.field("fsID", pa.int64() if _numbered(corpus) else pa.string()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("fold", pa.int64()),
        *([] if several else [pa.field("classID", pa.int64())]),
        pa.field("class", pa.list_(pa.string()) if several else pa.string()),
    ]
    return pa.schema(fields)


def _table(corpus: Corpus, clips: Sequence[int], schema: Any) -> Any:
    import pyarrow as pa

    rows, numbered = [], schema.field("fsID").type == pa.int64()
    for i in clips:
        group, fold, labels = corpus.groups[i], int(corpus.folds[i]), corpus.label_lists[i]
        names = [corpus.classes[k] for k in labels]
        row = {
            "audio": {"bytes": _wav(corpus, i), "path": corpus.ids[i]},
            "slice_file_name": corpus.ids[i],
            "fsID": int(group) if group is not None and numbered else group,
            "start": 0.0,
            "end": float(corpus.seconds[i]),
            "fold": None if fold < 0 else fold,
        }
        rows.append(
            row | ({"class": names} if corpus.task == "multilabel" else {"classID": labels[0], "class": names[0]})
        )
    return pa.Table.from_pylist(rows, schema=schema)


def _numbered(corpus: Corpus) -> bool:
    """Whether all groups are plain numbers, as UrbanSound8K's are."""
    return all(g is None or (g.isascii() and g.isdecimal() and str(int(g)) == g and len(g) < 19) for g in corpus.groups)


def _wav(corpus: Corpus, clip: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.asarray(corpus.samples_of(clip)), corpus.sample_rate, subtype="PCM_16", format="WAV")
    return out.getvalue()
