"""Small data sets in other formats than audio files: embeddings in TFRecord files, pictures, audio in Parquet."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile as sf
from PIL import Image

from audio_cls.data.codecs.crc32c import masked_crc32c
from audio_cls.data.codecs.sequence_example import SequenceExamples, serialise
from audio_cls.data.manifest import Clip, Manifest


def framed(data: bytes) -> bytes:
    """One record of a TFRecord file."""
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def write_records(path: Path, examples: Iterable[bytes]) -> list[int]:
    """Write a TFRecord file; returns the byte at which each record begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets, out = [], io.BytesIO()
    for data in examples:
        offsets.append(out.tell())
        out.write(framed(data))
    if not path.exists() or path.read_bytes() != out.getvalue():  # what is there keeps its time
        path.write_bytes(out.getvalue())
    return offsets


def embedding(rows: int, label: int, seed: int, n_values: int = 128) -> np.ndarray:
    """(rows, n_values) uint8: a vector that differs by label, with noise."""
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(1000 + label).integers(60, 196, n_values)
    return np.clip(centre + rng.normal(0, 25, (rows, n_values)), 0, 255).astype(np.uint8)


def example(video: str, labels: list[int], values: np.ndarray) -> bytes:
    context = {
        "video_id": [video.encode()],
        "start_time_seconds": [0.0],
        "end_time_seconds": [10.0],
        "labels": labels,
    }
    return serialise(context, {"audio_embedding": [[row.tobytes()] for row in values]})


def embeddings_manifest(root: Path, n: int = 48, n_values: int = 128) -> Manifest:
    """A manifest of embeddings of 6 to 10 rows in two TFRecord files, two classes, folds 1 to 4."""
    clips = []
    for part in range(2):
        here = range(part, n, 2)
        made = [example(f"v{i}", [i // 2 % 2], embedding(10 - i % 5, i // 2 % 2, i, n_values)) for i in here]
        path = root / f"0{part}.tfrecord"
        for i, offset in zip(here, write_records(path, made), strict=True):
            clips.append(Clip(f"v{i}", path, (("music", "speech")[i // 2 % 2],), fold=1 + i // 4 % 4, position=offset))
    codec = SequenceExamples(n_values=n_values)
    return Manifest("embeddings", tuple(clips), ("music", "speech"), "multiclass", "test", root=root, codec=codec)


def picture(label: int, seed: int, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> Image.Image:
    """A picture (width, height) with a bright band whose height differs by label."""
    rng = np.random.default_rng(seed)
    width, height = size
    grey = rng.integers(0, 90, (height, width))
    top = height // 5 + label * height // 2
    grey[top : top + 4] += 140
    if mode == "I;16":
        return Image.fromarray((grey * 257).astype(np.uint16))
    image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB").quantize(64) if mode == "P" else image.convert(mode)


def write_pictures(root: Path, n: int = 40, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> list[Path]:
    """A folder of pictures for each of two classes."""
    paths = []
    for i in range(n):
        path = root / ("high", "low")[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i % 2, i, size, mode).save(path)
        paths.append(path)
    return paths


def audio_bytes(seed: int, seconds: float = 0.3, rate: int = 16000, kind: str = "WAV") -> bytes:
    out = io.BytesIO()
    sf.write(out, np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate)), rate, format=kind)
    return out.getvalue()


def write_audio_table(path: Path, values: list[bytes | None], *, row_group: int = 7) -> None:
    """A Parquet file or, by its ending, an Arrow stream with audio = struct{bytes, path}, name and class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "audio": pa.array([{"bytes": v, "path": f"{i}.wav"} for i, v in enumerate(values)]),
            "slice_file_name": [f"{i}.wav" for i in range(len(values))],
            "class": [("dog", "cat")[i % 2] for i in range(len(values))],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=row_group)
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=row_group)
