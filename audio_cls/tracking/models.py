"""A run's weights as an MLflow LoggedModel, which `mlflow.pyfunc` loads and `mlflow models serve` serves.

The model holds no pickle and no code: `MLmodel` names the module of the installed package that loads it (`LOADER`), and
`data/run/` holds the files that labelling needs, as the run recorded them. Where the artifacts lie on this machine, the weights
are a hard link to the run's: they are stored once, and stay when either of the two is deleted.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import os
import platform
import shutil
import struct
import tempfile
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError
from audio_cls.tracking.notes import NOTE, note_tags
from audio_cls.tracking.outbox import Operation
from audio_cls.tracking.reads import fetch
from audio_cls.tracking.store import Refused

__all__ = [
    "ABOUT",
    "DATA",
    "LOADER",
    "MODEL",
    "SAMPLE_RATE",
    "About",
    "bad_request",
    "find_model",
    "is_ready",
    "is_served",
    "output_columns",
    "read_about",
    "send_model",
]

MODEL = "model"  # the name of a run's model: runs:/RUN/model
LOADER = "audio_cls.inference.mlflow_model"
DATA = "data/run"  # where the run's files lie in the model's folder
ABOUT = "run.json"  # what the model's folder tells about its run
SAMPLE_RATE = "sample_rate"  # the parameter of `predict` that gives the sample rate of arrays
_NEEDED = ("experiment.json", "classes.json")
THRESHOLDS = "thresholds.json"  # only runs with several labels a clip have them
_LINKED = ("best/", "test/", "baseline/", "cross_validation/", "final/parameters")  # the figures that a model shows
_PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "pandas", "soundfile", "soxr", "safetensors", "pydantic")
_TOO_OLD = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")


@dataclass(frozen=True)
class About:
    """What a model's folder tells about its run. source_digests: of the files that declare parts of the user's own."""

    run_id: str
    run_name: str
    experiment_digest: str | None
    source_digests: tuple[str, ...]


def read_about(folder: Path) -> About:
    """Read `run.json` of a model's files.

    Raises:
        UserError: when it is missing or damaged.
    """
    path = folder / ABOUT
    try:
        found = json.loads(path.read_bytes())
        digest = found["experiment_digest"]
        digests = tuple(str(d) for d in found["source_digests"])
        return About(str(found["run_id"]), str(found["run_name"]), None if digest is None else str(digest), digests)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the folder of a model, or damaged: {type(error).__name__}: {error}") from None


def output_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of a prediction: `label`, `score` and one for each class; a class of such a name is `NAME (class)`."""
    return ["label", "score", *(f"{name} (class)" if name in ("label", "score") else name for name in classes)]


def is_served() -> bool:
    """Return whether this is the process of `mlflow models serve`, where requests come from elsewhere."""
    return "__pyfunc_model_path__" in os.environ


def bad_request(message: str) -> Exception:
    """Return the error that a server answers a request with: its message, without a traceback."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    return MlflowException(message, error_code=BAD_REQUEST)


def find_model(client: Any, run: Any, name: str = MODEL) -> Any:
    """Return the LoggedModel of this name that a run (MLflow's) has, the newest one that is ready if one is; None without any."""
    wanted = f"source_run_id = '{run.info.run_id}' AND name = '{name}'"
    models = client.search_logged_models([run.info.experiment_id], filter_string=wanted)
    return max(models, key=lambda m: (is_ready(m), m.creation_timestamp), default=None)


def is_ready(model: Any) -> bool:
    """Return whether all files of a LoggedModel are there."""
    return str(model.status) == "READY"


def send_model(client: Any, run_id: str, operation: Operation) -> None:
    """Log a run's weights as a LoggedModel, or renew the tags and figures of the one that is there.

    Args:
        operation: name of the model, its tags and note, and which artifact of the run its weights are.

    Raises:
        Refused: for a run without the artifacts that labelling needs, and by a server older than MLflow 3.
        Exception: whatever MLflow raises.
    """
    from mlflow.entities import LoggedModelOutput

    try:
        run = client.get_run(run_id)
        tags = {**operation["tags"], **note_tags(operation["note"].replace("RUN_ID", run_id))}
        model = find_model(client, run, operation["name"])
        if model is None:
            params = {k: v for k, v in run.data.params.items() if v != "none"}
            experiment_id = run.info.experiment_id
            model = client.create_logged_model(
                experiment_id, operation["name"], run_id, tags=tags, params=params, model_type="audio classifier"
            )
        elif tags:
            kept = tags if _may_describe(model) else {k: v for k, v in tags.items() if k not in note_tags("x")}
            client.set_logged_model_tags(model.model_id, kept)
        if model.model_id not in _outputs(run):
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        if not is_ready(model):
            _store(client, run, model, operation)
            client.finalize_logged_model(model.model_id, "READY")
        _link_figures(client, run, model.model_id)
    except Exception as error:
        if getattr(error, "error_code", None) in _TOO_OLD:
            raise Refused("the tracking server has no logged models: it is older than MLflow 3") from error
        raise


def _may_describe(model: Any) -> bool:
    """Whether the description of a model is still the one that was written here."""
    note = model.tags.get(NOTE)
    return note is None or note_tags(note).items() <= dict(model.tags).items()


def _outputs(run: Any) -> set[str]:
    """Return the ids of the models that a run shows as its output."""
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs is not None else set()


def _link_figures(client: Any, run: Any, model_id: str) -> None:
    """Show the run's figures with its model, beside the data that they were measured on. The run's own are left as they are."""
    from mlflow.entities import Metric

    data = [i.dataset for i in run.inputs.dataset_inputs] if run.inputs is not None else []
    dataset = {"dataset_name": data[0].name, "dataset_digest": data[0].digest} if data else {}
    points = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run.info.run_id, **dataset)
        for m in run.data._metric_objs
        if m.key.startswith(_LINKED) and not math.isnan(m.value)
    ]
    for start in range(0, len(points), 1000):
        client.log_batch(run.info.run_id, metrics=points[start : start + 1000], synchronous=True)


def _store(client: Any, run: Any, model: Any, operation: Operation) -> None:
    """Write the files of a model to where MLflow keeps them."""
    run_id, weights = run.info.run_id, operation["weights"]
    location = str(model.artifact_location).removeprefix("file://")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        files = folder / DATA
        files.mkdir(parents=True)
        try:
            for name in _NEEDED:
                shutil.copyfile(fetch(client, run_id, name, Path(scratch)), files / name)
            source = fetch(client, run_id, weights, Path(scratch))
        except FileNotFoundError as missing:
            raise Refused(f"the run has no {missing}: only a COMPLETE run becomes a model") from None
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(fetch(client, run_id, THRESHOLDS, Path(scratch)), files / THRESHOLDS)
        about = {
            "run_id": run_id,
            "run_name": run.info.run_name,
            "experiment_digest": run.data.tags.get("experiment.digest"),
            "source_digests": [d for d in run.data.tags.get("source.digest", "").split(",") if d],
        }
        (files / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
        _write_description(folder, files, run_id, model.model_id, source.stat().st_size)
        place = files / "weights" / Path(weights).name
        local = location.startswith("/")
        if not local:
            _link_or_copy(source, place)
        client.log_model_artifacts(model.model_id, str(folder))
        if local:
            _link_or_copy(source, Path(location) / place.relative_to(folder))


def _link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`; a copy where the file system has no hard links, or they lie on two."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # replacing a file by another link to it leaves both names


def _write_description(folder: Path, files: Path, run_id: str, model_id: str, weight_bytes: int) -> None:
    """Write `MLmodel`, the example of an input, and the packages that the model needs."""
    from mlflow.models import Model
    from mlflow.pyfunc import add_to_model

    meta = json.loads((files / "classes.json").read_text(encoding="utf-8"))
    sample_rate = json.loads((files / "experiment.json").read_text(encoding="utf-8"))["data"].get("sample_rate")
    size = sum(path.stat().st_size for path in files.iterdir() if path.is_file()) + weight_bytes
    example = _example(sample_rate if isinstance(sample_rate, int) else 16000)
    (folder / "input_example.json").write_text(json.dumps(example), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": example}), encoding="utf-8")
    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=_signature(meta["classes"]),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
        },
        metadata={"audio_cls": _installed("audio_cls"), "task": meta["task"], "sample_rate": sample_rate},
        model_size_bytes=size,
    )
    add_to_model(
        model,
        loader_module=LOADER,
        data=DATA,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config={"device": "auto"},
        streamable=False,
    )
    model.save(str(folder / "MLmodel"))
    _write_requirements(folder)


def _signature(classes: Sequence[str]) -> Any:
    """Return the signature of a model: one column of audio files in, scores out.

    The column has no name, so that paths and bytes may be given as they are, in a list, or in a table whose first column holds them.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    label, *numbers = output_columns(classes)
    outputs = [ColSpec(DataType.string, label), *(ColSpec(DataType.double, name) for name in numbers)]
    return ModelSignature(
        Schema([ColSpec(DataType.binary)]), Schema(outputs), ParamSchema([ParamSpec(SAMPLE_RATE, DataType.long, 0)])
    )


def _example(sample_rate: int) -> Mapping[str, Any]:
    """Return an input as JSON: a WAV file of a tenth of a second of 440 Hz, in base64."""
    tone = (0.3 * math.sin(2 * math.pi * 440 * i / sample_rate) for i in range(sample_rate // 10))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(b"".join(struct.pack("<h", round(32767 * value)) for value in tone))
    return {"columns": ["audio"], "data": [[base64.b64encode(buffer.getvalue()).decode()]]}


def _write_requirements(folder: Path) -> None:
    """Write which packages a model needs; audio_cls itself must be installed where the model is loaded."""
    needed = ["mlflow", *(name for name in _PACKAGES)]
    lines = [f"{name}=={found}" for name in needed if (found := _installed(name))]
    python = platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "python_env.yaml").write_text(
        f"python: {python}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n", encoding="utf-8"
    )
    pip = "".join(f"  - {line}\n" for line in lines)
    (folder / "conda.yaml").write_text(
        f"name: mlflow-env\nchannels:\n- conda-forge\ndependencies:\n- python={python}\n- pip\n- pip:\n{pip}",
        encoding="utf-8",
    )


def _installed(package: str) -> str | None:
    """Return the version of an installed package, without a local part such as +cpu."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None
