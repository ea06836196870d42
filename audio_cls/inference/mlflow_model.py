"""What MLflow loads and serves a model with: `mlflow.pyfunc.load_model("runs:/RUN/model")`, `models:/NAME@champion`.

A model's `MLmodel` names this module as its loader: its folder holds weights and JSON, no code. Parts of the user's own are found
as for a recorded run, in the workspace (AUDIO_CLS_WORKSPACE or the current folder) that ran them; import their file before the
model is loaded, or install it (entry point `audio_cls.components`), elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from audio_cls.core.device import choose_device
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.inference.run_labeller import RunLabeller
from audio_cls.runs.own_parts import read_recorded, recorded
from audio_cls.tracking.models import SAMPLE_RATE, bad_request, is_served, output_columns, read_about

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AudioModel", "open_model_folder"]


class AudioModel:
    """A labeller behind MLflow's interface.

    Attributes:
        labeller: what it labels with.
        served: whether requests come over HTTP: files of this machine are not opened for them.
    """

    def __init__(self, labeller: RunLabeller, served: bool = False) -> None:
        self.labeller, self.served = labeller, served

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Label recordings of any length.

        Args:
            model_input: their first column holds the paths or the bytes of audio files, or waveforms (samples,) of floats in [-1, 1].
            params: `sample_rate` of waveforms in Hz; the model's own unless given, or 0.

        Returns:
            a row for each: `label` (the most probable class), `score` (its probability), and the probability of each class.

        Raises:
            UserError: for what cannot be read as sound, with the number of its row; as a server, MLflow's error for a bad request.
        """
        import pandas as pd

        sample_rate = int((params or {}).get(SAMPLE_RATE) or self.labeller.sample_rate)
        classes = self.labeller.classes
        rows: list[list[str | float]] = []
        for number, sound in enumerate(_sounds(model_input.iloc[:, 0])):
            try:
                if self.served and isinstance(sound, (str, Path)):
                    raise UserError(
                        "a text. Allowed: the bytes of an audio file, in base64, as dataframe_split or dataframe_records"
                    )
                by_class = self.labeller.predict(_as_sound(sound, sample_rate))
            except (UserError, OSError, ValueError, TypeError) as error:
                message = f"row {number}{_kind(sound)}: {error}"
                raise (bad_request(message) if self.served else UserError(message)) from None
            label = next(iter(by_class))
            rows.append([label, by_class[label], *(by_class[name] for name in classes)])
        return pd.DataFrame(rows, columns=output_columns(classes))


def open_model_folder(folder: Path, device: torch.device, workspace: Workspace, name: str = "") -> RunLabeller:
    """Return the labeller of a model's files, `data/run` in the model's folder.

    Raises:
        UserError: for a file that is missing or damaged; for parts of the user's own that never ran in the workspace.
    """
    about = read_about(folder)
    path = folder / "experiment.json"
    text = read_recorded(path, about.experiment_digest)
    where = f"the model of run {about.run_name} ({about.run_id[:8]})"
    experiment = recorded(lambda: Experiment.from_json(text, str(path)), workspace, about.source_digests, where=where)
    return RunLabeller(folder, device, experiment, name=name or about.run_name)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> AudioModel:
    """Return what MLflow calls `predict` of. `model_config` may give the `device` ("auto", "cpu", "cuda", ...)."""
    device = choose_device(str((model_config or {}).get("device", "auto")))
    return AudioModel(open_model_folder(Path(path), device, Workspace.find()), is_served())


def _sounds(column: pd.Series[Any]) -> Iterator[Any]:
    """Yield the entries of a column. MLflow makes one row of {"audio": ["a.wav", "b.wav"]}: a list of paths stands for each of them."""
    for value in column:
        if isinstance(value, (list, tuple)) and value and all(isinstance(item, (str, bytes, Path)) for item in value):
            yield from value
        else:
            yield value


def _as_sound(value: Any, sample_rate: int) -> Any:
    """Return what `Labeller.predict` takes: a path, the bytes of a file, or samples with their rate."""
    if isinstance(value, (str, Path, bytes)):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError("empty. Allowed: the path or the bytes of an audio file, or a waveform")
    samples = np.asarray(value, dtype=np.float32)
    if samples.ndim != 1 or not len(samples):
        raise UserError(f"an array of shape {samples.shape}. Allowed: a waveform (samples,) of floats in [-1, 1]")
    return samples, sample_rate


def _kind(value: Any) -> str:
    """Return what an entry is, for messages; paths are in the messages themselves."""
    if isinstance(value, (str, Path)):
        return ""
    return f" ({len(value):,} bytes)" if isinstance(value, (bytes, bytearray)) else f" ({type(value).__name__})"
