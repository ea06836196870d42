"""Label an audio file with the ONNX model in this folder: python run_onnx.py FILE.wav. Needs onnxruntime, numpy and soundfile."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

if len(sys.argv) < 2:
    sys.exit(__doc__)
here = Path(__file__).parent
meta = json.loads((here / "classes.json").read_text(encoding="utf-8"))
model = "model.int8.onnx" if "--int8" in sys.argv else "model.onnx"
samples, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
if rate != meta["sample_rate"]:
    sys.exit(f"{sys.argv[1]} has {rate} Hz: resample it to {meta['sample_rate']} Hz first")
waveform = samples.mean(axis=1)[None]  # (1, samples), mono, in [-1, 1]
session = onnxruntime.InferenceSession(here / model, providers=["CPUExecutionProvider"])
(probabilities,) = session.run(None, {"waveform": waveform})  # (1, n_classes)
for k in np.argsort(-probabilities[0])[:5]:
    print(f"{probabilities[0, k]:.4f}  {meta['classes'][k]}")
