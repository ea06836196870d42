"""Write sequences in the layout of AudioSet's published embeddings (`data.sources.audioset` reads them)."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.workspace import atomic_write
from audio_cls.data.codecs.sequence_example import serialise
from audio_cls.data.codecs.tfrecord import framed
from audio_cls.data.corpus import Corpus

__all__ = ["quantise", "write_audioset"]


def quantise(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Turn values into bytes as AudioSet does: clipped to -2 to 2, so that value = byte * 4 / 255 + 4 / 512 - 2 gives them back.

    S. Hershey et al., "CNN architectures for large-scale audio classification" (ICASSP 2017).
    """
    return np.floor((np.clip(values, -2, 2) + 2) * (255 / 4)).astype(np.uint8)


def write_audioset(
    corpus: Corpus,
    rows: Callable[[int], NDArray[np.uint8]],
    evaluation: NDArray[np.bool_],
    folder: Path,
    progress: Callable[[int, int, str], None],
) -> None:
    """Write `bal_train` and `eval` with one record a clip, files named by the first two characters of the video ids, the class map
    and `clips.csv`, which says what each record was.

    The video id is the clip's group, so that a split by videos keeps groups whole; clips of a group follow one another in seconds.

    Args:
        rows: clip -> (n, 128) uint8.
        evaluation: (clips,) True for those of the evaluation set.
    """
    n, begins = len(corpus), defaultdict[str, int](int)
    records: dict[Path, list[bytes]] = defaultdict(list)
    table = io.StringIO()
    out = csv.writer(table, lineterminator="\n")
    out.writerow(["part", "video_id", "start_time_seconds", "clip", "fold", "group"])
    for i, clip_id in enumerate(corpus.ids):
        group, values = corpus.groups[i], rows(i)
        video = clip_id if group is None else group
        start = begins[video]
        begins[video] += math.ceil(corpus.seconds[i])
        context: dict[str, list[Any]] = {
            "video_id": [video.encode()],
            "start_time_seconds": [float(start)],
            "end_time_seconds": [start + float(corpus.seconds[i])],
            "labels": list(map(int, corpus.label_lists[i])),
        }
        part = "eval" if evaluation[i] else "bal_train"
        name = re.sub(r"[^A-Za-z0-9_-]", "_", video[:2].ljust(2, "_"))
        data = serialise(context, {"audio_embedding": [[row.tobytes()] for row in values]})
        records[folder / part / f"{name}.tfrecord"].append(framed(data))
        fold = int(corpus.folds[i])
        out.writerow([part, video, start, clip_id, "" if fold < 0 else fold, group or ""])
        progress(i + 1, n, clip_id)
    for path, found in records.items():
        atomic_write(path, b"".join(found))
    classes = io.StringIO()
    out = csv.writer(classes, lineterminator="\n")
    out.writerow(["index", "mid", "display_name"])
    out.writerows([k, f"/x/{k:04d}", name] for k, name in enumerate(corpus.classes))
    atomic_write(folder / "class_labels_indices.csv", classes.getvalue())
    atomic_write(folder / "clips.csv", table.getvalue())
