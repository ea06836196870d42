"""What an unpacked archive of a study holds, checked as a whole: after this, an import makes things, and refuses nothing more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.views import view_of
from audio_cls.study.transfer.archive import read_json
from audio_cls.study.transfer.archive_schema import RUN_ID, StudyRecord, check_run, check_study
from audio_cls.study.transfer.carried_weights import check_weights
from audio_cls.study.transfer.exporting import PLAIN_NAME, runs_of
from audio_cls.study.transfer.portable import study_from_json

__all__ = ["Contents", "read_contents"]

CHECKPOINT = r"last\.safetensors|best-\d{4,9}\.safetensors"


@dataclass(frozen=True)
class Contents:
    """An archive's parts. `runs` maps a run's id to its record and its folder, `checkpoints` holds (root, number, folder),
    `packed` is the folder of the corpus where that came along, `labels` the view of its labels that the study asks for,
    `weights` the files of pretrained weights by their SHA-256."""

    study: dict[str, Any]
    trials: list[FrozenTrial]
    sources: dict[str, str]
    runs: dict[str, tuple[dict[str, Any], Path]]
    checkpoints: list[tuple[int, int, Path]]
    corpus: str
    digest: str
    packed: Path | None
    labels: Any = None
    weights: Mapping[str, Path] = field(default_factory=dict)


def read_contents(file: Path, folder: Path, manifest: Mapping[str, Any]) -> Contents:
    """Read and check an archive that `read_archive` has unpacked.

    Args:
        file: the archive, for messages.
        folder: where it was unpacked.

    Raises:
        UserError: for whatever does not hold, naming the part.
    """
    study = read_json(folder / "study.json", file)
    record = check_study(study, f"{file}: study.json")
    trials = study_from_json(study, str(file))
    runs = _runs(file, folder / "mlflow", set(runs_of(study)))
    checkpoints = _checkpoints(file, folder / "checkpoints", record)
    data = manifest.get("data", {})
    corpus, digest = str(data.get("corpus", "")), str(data.get("digest", ""))
    labels = data.get("labels")
    packed = _packed(file, folder / "corpora", corpus, digest, labels)
    weights = check_weights(file, folder / "weights", study)
    return Contents(study, trials, dict(record.sources), runs, checkpoints, corpus, digest, packed, labels, weights)


def _runs(file: Path, folder: Path, known: set[str]) -> dict[str, tuple[dict[str, Any], Path]]:
    out = {}
    for run in sorted(folder.glob("*")):
        where = f"mlflow/{run.name}"
        if not re.fullmatch(RUN_ID, run.name) or run.name not in known:
            raise UserError(f"{file}: {where} belongs to no trial of the study; nothing was imported")
        if not (run / "run.json").is_file() or {p.name for p in run.iterdir()} - {"run.json", "artifacts"}:
            raise UserError(f"{file}: {where}: expected run.json and artifacts; nothing was imported")
        record = read_json(run / "run.json", file)
        check_run(record, f"{file}: {where}/run.json")
        out[run.name] = (record, run / "artifacts")
    return out


def _checkpoints(file: Path, folder: Path, record: StudyRecord) -> list[tuple[int, int, Path]]:
    places = {(f"{root:05d}", f"{number:05d}"): (root, number) for number, root in record.roots.items()}
    out = []
    for found in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = found.relative_to(folder).parts
        if len(parts) != 3 or parts[:2] not in places or not re.fullmatch(CHECKPOINT, parts[2]):
            raise UserError(
                f"{file}: checkpoints/{'/'.join(parts)} is no checkpoint of a trial of the study; nothing was imported"
            )
        if (place := (*places[parts[:2]], found.parent)) not in out:
            out.append(place)
    return out


def _packed(file: Path, folder: Path, name: str, digest: str, labels: Any) -> Path | None:
    """Return the folder of the corpus in the archive, read whole and compared with its checksums."""
    if not folder.exists():
        return None
    packed = folder / name
    if not re.fullmatch(PLAIN_NAME, name) or [p.name for p in folder.iterdir()] != [name] or not packed.is_dir():
        raise UserError(f"{file}: corpora/ holds something else than the study's corpus {name!r}; nothing was imported")
    try:
        corpus = Corpus.open(packed)
        if corpus.samples_path.parent != packed:
            raise UserError(f"its samples are said to lie in {corpus.index['samples']!r}")
        corpus.verify()
        found = view_of(corpus, {"labels": labels}).digest
    except Exception as error:  # whatever a damaged index leads to
        raise UserError(
            f"{file}: corpora/{name} does not hold together ({type(error).__name__}: {error}); nothing was imported"
        ) from None
    if found != digest or not corpus.name.isprintable():
        raise UserError(
            f"{file}: corpora/{name} is the corpus {corpus.name!r} with the digest {found[:12]}, the study was begun on "
            f"{digest[:12]}; nothing was imported"
        )
    return packed
