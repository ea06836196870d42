r"""S2, one label a clip: a search for a three-block CNN on families of sounds, by TPE with median pruning.

    audio-cls data prepare PATH/TO/ESC-10 --name esc10 --layout esc50 --subset esc10
    audio-cls study run studies/s2_single_label.py --trials 12

The families are ESC-50's own five, of which ESC-10 has all. On FSD50K, whose families come from the ontology:

    audio-cls data prepare PATH/TO/FSD50K --name fsd50k --sample-rate 22050
    audio-cls study run studies/s2_single_label.py --trials 60 --set data.corpus=fsd50k --set data.split=official \
        --set data.labels=families --set data.labels.several=leave_out --set model.widths=32,64,128 --set model.pooled=none \
        --set model.head=128

Cost: about 3 minutes of one core for 12 trials, five of them pruned. Found on fold 2's 80 clips: mAP 0.981 at the best epoch of the best trial, 0.975
at its last; a model that learned nothing 0.2.

The best trial's figure was chosen on the clips that it is measured on; `audio-cls study confirm s2-single-label` says what is left of it.
"""

from typing import Any

from audio_cls import TPE, Experiment, Median, Published, Study

FAMILIES = ["dog=animals", "rooster=animals", "rain=nature", "sea_waves=nature", "crackling_fire=nature"]
FAMILIES += ["crying_baby=human", "sneezing=human", "clock_tick=interior", "chainsaw=exterior", "helicopter=exterior"]

BASE = Experiment.parse(
    {
        "data": {
            "corpus": "esc10",
            "clip_seconds": 5.0,
            "pad": "tile",
            "split": {"kind": "folds"},
            "labels": {"kind": "mapped", "pairs": FAMILIES},
        },
        "features": {"kind": "log_mel", "n_fft": 1024, "hop_length": 512, "n_mels": 64},
        "model": {"kind": "cnn", "widths": [8, 16, 32], "pooled": [4, 4], "head": [64], "dropout": [0.2]},
        "optimizer": {"kind": "adam", "lr": 1e-3},
        "training": {"epochs": 12, "batch_size": 16, "metric": "val/map"},
    }
)


def space(trial: Any) -> dict[str, Any]:
    """Overrides of BASE for one trial."""
    return {
        "optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "optimizer.weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-3, log=True),
        "model.dropout": [trial.suggest_float("dropout", 0.0, 0.5)],
        "training.batch_size": trial.suggest_categorical("batch_size", [8, 16, 32]),
    }


THEIRS = {"on": "their evaluation clips of FSD50K", "source": "S2's report on FSD50K", "chosen": "by TPE on validation"}

STUDY = Study(
    "s2-single-label",
    base=BASE,
    space=space,
    metric="val/map",
    direction="maximize",
    sampler=TPE(seed=0, startup_trials=5),
    pruner=Median(startup_trials=4, warmup_epochs=4),
    published=[
        Published("map", 0.577, label="six families", **THEIRS),
        Published("map", 0.676, label="five families", **THEIRS),
        Published("map", 0.624, label="PANNs CNN6, pretrained", **THEIRS),
    ],
)
