"""Archives of studies made by hand: small ones, without any training, and damaged ones whose checksums are right."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from audio_cls.study.transfer.portable import study_to_json

RUN_ID = "0123456789abcdef0123456789abcdef"
SOURCE = "from helpers import STUDY\n"
HELPER = """
from pathlib import Path

from audio_cls.experiment import Experiment
from audio_cls.study import RandomSearch, Study

(Path(__file__).parent / "executed").touch()
STUDY = Study("small", base=Experiment(), space=lambda trial: {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)},
              sampler=RandomSearch(seed=1))
"""


def study_json() -> dict[str, Any]:
    """A study with a complete, a pruned and an interrupted trial that was taken up again."""
    study = optuna.create_study(direction="maximize", study_name="small")
    lr, kind = FloatDistribution(1e-4, 1e-2, log=True), CategoricalDistribution(("a", None, 2, True))
    attrs = {"ready": True, "experiment": "{}", "overrides": {"optimizer.lr": 1e-3}}

    def add(state: TrialState, value: float | None = None, **more: Any) -> None:
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params={"lr": 1e-3, "kind": None},
                distributions={"lr": lr, "kind": kind},
                user_attrs={**attrs, **more},
                intermediate_values={0: 0.25, 1: float("nan")},
            )
        )

    add(TrialState.COMPLETE, 0.5, config=0, outcome="complete", mlflow_run_id=RUN_ID, cost={"seconds": 1.5})
    add(TrialState.PRUNED, config=1, outcome="pruned", reason="pruned: too low")
    add(TrialState.FAIL, config=2, outcome="interrupted", reason="SIGTERM", deaths=0)
    add(TrialState.WAITING, config=2, resumed_from=2, root_trial=2, attempt=1, inherited_epochs=2)
    identity = {
        "format": 1,
        "base": {"data": {"corpus": "tones"}},
        "metric": "val/macro_f1",
        "direction": "maximize",
        "sampler": {"kind": "random", "seed": 1},
        "pruner": {"kind": "median", "startup_trials": 8, "warmup_epochs": 10, "interval": 1, "min_trials": 1},
        "space": {"digest": "0" * 64, "source": "lambda trial: {}"},
        "data": "ab" * 32,
        "metric_version": 2,
    }
    launch = {"file": "studies/small.py", "set": [], "sources": {"small.py": SOURCE, "helpers.py": HELPER}}
    for key, value in {"audio_cls": identity, "launch": launch, "total": 4}.items():
        study.set_user_attr(key, value)
    return study_to_json(study)


def run_json() -> dict[str, Any]:
    return {
        "run_id": RUN_ID,
        "name": "small 000",
        "experiment": "tones/multiclass",
        "note": "",
        "start": 1_700_000_000_000,
        "end": 1_700_000_060_000,
        "status": "FINISHED",
        "params": {"optimizer.lr": "0.001"},
        "tags": {"study": "small", "state": "COMPLETE", "trial": "0"},
        "metrics": {"val/macro_f1": [[0, 0.25, 1_700_000_001_000], [1, 0.5, 1_700_000_002_000]]},
        "data": [{"name": "tones", "digest": "abababab", "source_type": "local", "source": "{}", "schema": None, "profile": None, "tags": {}}],
    }  # fmt: skip


def documents() -> dict[str, Any]:
    """The JSON files of an archive that is in order; the manifest without its list of files."""
    about = {"audio_cls": "study archive", "format": 1, "study": "small", "versions": {"python": "3.11.0"}}
    return {
        "study.json": study_json(),
        f"mlflow/{RUN_ID}/run.json": run_json(),
        "manifest.json": {**about, "data": {"corpus": "tones", "digest": "ab" * 32}},
    }


def plain_files() -> dict[str, bytes]:
    return {
        f"mlflow/{RUN_ID}/artifacts/note.txt": b"hello",
        "checkpoints/00000/00000/last.safetensors": b"no weights",
        "checkpoints/00002/00002/last.safetensors": b"no weights",
    }


def pack(file: Path, documents: dict[str, Any], files: dict[str, bytes]) -> Path:
    """Write an archive with right checksums, whatever it holds. A document that is bytes already is written as it is."""
    parts = {
        k: v if isinstance(v, bytes) else json.dumps(v).encode() for k, v in documents.items() if k != "manifest.json"
    }
    parts |= files
    manifest = documents["manifest.json"]
    if isinstance(manifest, dict) and "files" not in manifest:
        listed = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in parts.items()}
        manifest = {**manifest, "files": listed}
    parts["manifest.json"] = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    with tarfile.open(file, "w") as tar:
        for name, data in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file
