"""What moves a CNN on ESC-10 that is trained from scratch? One change at a time, then what helped together.

    audio-cls data prepare PATH/TO/ESC-10 --name esc10-44k --layout esc50 --subset esc10 --sample-rate 44100
    audio-cls ablate run experiments/esc10_from_scratch.py --workers 2
    audio-cls compare --average plain        # an ensemble over the seeds of an arm (its name or run id), a figure of its own

Every fold validates once, four folds train, and figures are of the last epoch: nothing is chosen by the clips that measure it. Test clips are
not opened. The network is `cnn4` at half its widths, 229,882 parameters.

Cost: the suite has not been run as a whole. By the CPU seconds of an epoch (plain 1.2, full-width 2.6, fine-time 2.8, between-class 2.2,
stretch-pitch 4) its 180 runs take 4.3 hours of one quiet core. Found so far: plain, five folds x two seeds, accuracy 0.906 (sd 0.038 over the runs); both seeds
averaged 0.905 [0.863, 0.939]. The rest was stopped early, one seed, and shows nothing: on folds 1 and 2 (160 clips) plain 0.888, full-width 0.894, warp with 80 epochs 0.900; on fold 1
plain 0.850, fine-time 0.838. Six clips of fold 1 are cuts of one recording of a helicopter (1-172649), which no configuration called
helicopter but mostly rain: 1.5 of 100 points.
"""

from audio_cls import Ablation, Experiment

BASE = Experiment.parse(
    {
        "data": {"corpus": "esc10-44k", "clip_seconds": 5.0, "pad": "tile", "split": {"kind": "cross_validation"}},
        "features": {"kind": "log_mel", "n_fft": 4096, "hop_length": 2205, "n_mels": 128, "top_db": 80.0},
        "augment": {"time_roll": {}, "mixup": {"alpha": 0.4}},
        "model": {
            "kind": "cnn4",
            "widths": [16, 32, 64, 128],
            "bands": 8,
            "time_pooling": "mean_max",
            "hidden": 128,
            "dropout": 0.4,
        },
        "loss": {"kind": "cross_entropy", "label_smoothing": 0.1},
        "optimizer": {"kind": "adamw", "lr": 1.5e-3, "weight_decay": 0.01},
        "schedule": {"kind": "one_cycle"},
        "training": {"epochs": 40, "batch_size": 16, "metric": "val/macro_f1"},
    }
)

ABLATION = Ablation(
    "esc10-from-scratch",
    base=BASE,
    reference="plain",
    arms={
        "plain": {},
        "8-khz": {"features.f_max": 8000.0},
        "between-class": {"augment.mixup": "none", "augment.between_class": "on"},
        "stretch-pitch": {"augment.time_stretch": "on", "augment.pitch_shift": "on"},
        "warp": {"augment.warp": "on"},
        "ema": {"training.ema_decay": 0.995},
        "windows": {"data.clip_seconds": 2.5, "data.evaluation": {"kind": "windows", "number": 5}},
        "fine-time": {
            "features.n_mels": 64,
            "features.n_fft": 2048,
            "features.hop_length": 512,
            "model.bands": 4,
        },
        "less-dropout": {"model.dropout": 0.1, "model.hidden_dropout": 0.0},
        "full-width": {"model.widths": [32, 64, 128, 256], "model.hidden": 256},
        "long": {"training.epochs": 120},
        "long-warp": {"training.epochs": 120, "augment.warp": "on"},
    },
    metric=("val/accuracy", "val/macro_f1", "val/nll"),
    seeds=range(3),
    folds="all",
    differs=("budget",),
    question="What brings a CNN from scratch beyond 91 % on ESC-10: mixing, stretching, averaging, windows, width or time?",
)
