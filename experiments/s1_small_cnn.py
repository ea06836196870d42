"""S1, a small CNN on UrbanSound8K: does SpecAugment help, do class weights, and how far is logistic regression on MFCC statistics?"""

from audio_cls import Ablation, Experiment

BASE = Experiment.parse(
    {
        "data": {"corpus": "esc10", "clip_seconds": 4.0, "crop": "random", "pad": "end", "split": {"kind": "folds"}},
        "features": {
            "kind": "log_mel",
            "n_fft": 400,
            "hop_length": 200,
            "n_mels": 64,
            "f_max": None,
            "normalise": "none",
        },
        "model": {"kind": "small_cnn"},
        "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        "schedule": {"kind": "constant"},
        "training": {"epochs": 10, "batch_size": 16, "metric": "val/loss"},
    }
)

MFCC = {"n_fft": 400, "hop_length": 200, "n_mels": 64, "n_mfcc": 20, "top_db": 80.0, "f_max": None}

ABLATION = Ablation(
    "s1-small-cnn",
    base=BASE,
    reference="plain",
    arms={
        "plain": {},
        "specaugment": {"augment.specaugment": {"time_mask_frames": 20, "freq_mask_bins": 8, "fill": "mean"}},
        "class-weights": {"loss.class_weights": "inverse"},
        "logistic-regression": {
            "features": {"kind": "mfcc_statistics", **MFCC},
            "model": {"kind": "logistic_regression", "max_iter": 2000},
        },
    },
    metric=("val/accuracy", "val/macro_f1"),
    seeds=range(2),
    folds=(1, 2, 3),
    differs=("budget",),
    question="Does SpecAugment help a CNN of 24,170 parameters? Do class weights? Does it beat logistic regression on MFCC statistics?",
)
