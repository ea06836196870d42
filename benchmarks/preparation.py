"""What packing a large data set costs: rate against decoding alone, memory, time to open.

    OMP_NUM_THREADS=1 python benchmarks/preparation.py [--clips 50000] [--embeddings 200000] [--folder DIR]

About 6 minutes on one core and 1 GB of disk, given back at the end. Generates WAV files of 0.2 s at 8 kHz, and records of 10 x 128
bytes in AudioSet's layout; packs each with one worker in a process of its own. Short clips make the cost of a clip, not of its samples,
what is measured: the worst case for the index. Prints, for both

    decoding      clips a second when files are only decoded, by the same code in one process (a sample of 5,000)
    packing       clips a second from reading the layout to the last clip packed, and its share of decoding's rate
    preparing     clips a second of the whole call, which also looks for identical and (audio) nearly identical clips: the latter
                  compares all pairs of up to 50,000 clips (`benchmarks/duplicates.py`)
    memory        the largest resident size of the process beyond what its imports take, and the size of the packed rows
    again         seconds of the same call when nothing has changed
    open          milliseconds until a corpus is open: the median of 15 openings, and the first in a fresh process
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from audio_cls.data import sources
from audio_cls.data.codecs.sequence_example import serialise
from audio_cls.data.codecs.tfrecord import framed
from audio_cls.data.corpus import Corpus
from audio_cls.data.decoding import close_reader, decode_job
from audio_cls.data.manifest import Manifest
from audio_cls.data.packing import prepare

RATE, SECONDS = 8000, 0.2
DECODED = 5000
PER_FILE = 50  # records: AudioSet has some 2 million in 12,000 files
CLASSES = ("rain", "siren", "speech", "music")


def write_sounds(folder: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / CLASSES[i % 4] / f"{i:06d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, rng.uniform(-0.5, 0.5, int(RATE * SECONDS * rng.uniform(0.8, 1.2))), RATE)
    return folder


def write_embeddings(folder: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    (folder / "bal_train").mkdir(parents=True)
    for first in range(0, n, PER_FILE):
        records = []
        for i in range(first, min(n, first + PER_FILE)):
            values = rng.integers(0, 256, (10, 128), dtype=np.uint8)
            context: dict[str, list[Any]] = {"video_id": [b"%011d" % i], "start_time_seconds": [0.0], "labels": [i % 4]}
            records.append(framed(serialise(context, {"audio_embedding": [[row.tobytes()] for row in values]})))
        (folder / "bal_train" / f"{first // PER_FILE:05d}.tfrecord").write_bytes(b"".join(records))
    lines = ["index,mid,display_name", *(f"{k},/x/{k},{name}" for k, name in enumerate(CLASSES))]
    (folder / "class_labels_indices.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def decode_alone(manifest: Manifest) -> float:
    """Return clips a second of decoding some of the clips in this process, as a packing worker does."""
    codec = None if manifest.codec is None else manifest.codec.to_dict()
    request = {"sample_rate": RATE if codec is None else None, "max_seconds": None, "min_seconds": 0.05}
    clips = manifest.clips[:DECODED]
    jobs: dict[Path, list[dict[str, Any]]] = {}
    for clip in clips:
        jobs.setdefault(clip.path, []).append({"position": clip.position, "start": clip.start, "end": clip.end})
    started = time.perf_counter()
    for path, parts in jobs.items():
        facts, _ = decode_job({"codec": codec, "path": str(path), "parts": parts, "request": request})
        assert not any("bad" in found for found in facts["clips"])
    close_reader()
    return len(clips) / (time.perf_counter() - started)


def resident() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, corpus: Path) -> dict[str, float]:
    """Prepare a data set in this process and return the figures."""
    imported = resident()
    started = time.perf_counter()
    manifest = sources.read(folder)
    finished: list[float] = []

    def note(done: int, total: int, what: str) -> None:
        if done == total and not finished:
            finished.append(time.perf_counter() - started)

    made = prepare(manifest, corpus, workers=1, on_bad="refuse", progress=note).corpus
    seconds = time.perf_counter() - started
    peak, n = resident() - imported, len(made)
    del made
    started = time.perf_counter()
    assert prepare(sources.read(folder), corpus, workers=1, on_bad="refuse").decoded == 0
    again = time.perf_counter() - started
    alone = decode_alone(manifest)
    packed = sum(p.stat().st_size for p in corpus.glob("samples-*")) / 2**20
    return {
        "clips": n,
        "alone": alone,
        "packing": n / finished[0],
        "rate": n / seconds,
        "peak": peak,
        "packed": packed,
        "again": again,
    }


def openings(corpus: Path) -> list[float]:
    """Return the milliseconds of 15 openings, the first of them the first of this process."""
    times = []
    for _ in range(15):
        started = time.perf_counter()
        assert len(Corpus.open(corpus)) > 0
        times.append(1000 * (time.perf_counter() - started))
    return times


def in_a_process(function: str, *args: Path) -> Any:
    words = [sys.executable, __file__, "--call", function, *map(str, args)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=50_000)
    parser.add_argument("--embeddings", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary folder unless given")
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        functions: dict[str, Callable[..., Any]] = {"measure": measure, "openings": openings}
        print(json.dumps(functions[args.call[0]](*map(Path, args.call[1:]))))
        return
    for name, write, n in (("sounds", write_sounds, args.clips), ("embeddings", write_embeddings, args.embeddings)):
        root = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            found = in_a_process("measure", write(root / name, n), root / "corpus")
            first, *times = in_a_process("openings", root / "corpus")
        finally:
            shutil.rmtree(root)
        print(f"{name}: {found['clips']:,} clips")
        print(f"  decoding   {found['alone']:8,.0f} clips/s")
        for name, rate in (("packing", found["packing"]), ("preparing", found["rate"])):
            print(f"  {name:10} {rate:8,.0f} clips/s, {rate / found['alone']:.2f} of decoding alone")
        print(
            f"  memory     {found['peak']:8,.0f} MiB beyond the imports; the packed rows are {found['packed']:,.0f} MiB"
        )
        print(f"  again      {found['again']:8,.1f} s")
        print(f"  open       {statistics.median(times):8,.1f} ms, first of a process {first:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
