"""The demo's study: a small CNN on generated sounds.

    make demo

or, step by step:

    audio-cls data generate demo/sounds
    audio-cls data prepare demo/sounds --name demo
    audio-cls study run studies/demo.py --trials 14 --workers 2
"""

from audio_cls import TPE, Experiment, Median, Study

BASE = Experiment.parse(
    {
        "data": {"corpus": "demo", "clip_seconds": 2.0, "pad": "tile", "split": {"kind": "folds", "test_fold": 1}},
        "features": {"kind": "log_mel", "n_fft": 1024, "hop_length": 320, "n_mels": 64},
        "model": {"kind": "small_cnn"},
        "training": {"epochs": 15, "batch_size": 32, "metric": "val/macro_f1"},
    }
)


def space(trial):
    """Overrides of BASE for one trial."""
    changes = {
        "optimizer.lr": trial.suggest_float("lr", 3e-4, 2e-2, log=True),
        "loss.class_weights": trial.suggest_categorical("class_weights", ["none", "inverse"]),
    }
    if trial.suggest_categorical("time_roll", [False, True]):
        changes["augment.time_roll"] = "on"
    if trial.suggest_categorical("mixup", [False, True]):
        changes["augment.mixup.alpha"] = trial.suggest_float("mixup_alpha", 0.1, 0.6)
    if trial.suggest_categorical("specaugment", [False, True]):
        changes["augment.specaugment.time_mask_frames"] = trial.suggest_int("time_mask_frames", 4, 24)
    return changes


STUDY = Study(
    "demo",
    base=BASE,
    space=space,
    metric="val/macro_f1",
    direction="maximize",
    sampler=TPE(seed=0, startup_trials=6),
    pruner=Median(startup_trials=4, warmup_epochs=4),
)
