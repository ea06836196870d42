r"""S2, the four arms that were abandoned: three blocks in place of four, and clips that are not cut at random.

    audio-cls data prepare PATH/TO/ESC-10 --name esc10 --layout esc50 --subset esc10
    audio-cls data mix esc10 mixtures --clips 800 --labels 2.0 --tail 0.7
    audio-cls data prepare mixtures --name esc10-mix --set families=dog=animals,rooster=animals,rain=nature,sea_waves=nature,\
crackling_fire=nature,crying_baby=human,sneezing=human,clock_tick=interior,chainsaw=exterior,helicopter=exterior
    audio-cls ablate run experiments/s2_abandoned.py

On FSD50K (three blocks of 32, 64 and 128 channels: 1.3 million parameters, theirs had 1.4):

    audio-cls ablate run experiments/s2_abandoned.py --set data.corpus=fsd50k --set data.split=official --set data.clip_seconds=6 \
        --set features.n_mels=128 --set features.hop_length=256 --set model.widths=32,64,128 --set model.head=512,256

which trains each arm once for each seed on that one split. See s2_imbalance.py for the arms that they kept.

Cost: about 12 s a run of one core. Found with two of the five folds and two seeds (16 runs), mAP of the last epoch in points, p after Holm: plain 52.0
(sd 3.9); weighted-focal +2.8 [-2.0, 7.6], p = 0.23; oversampling +1.5 [-3.6, 6.6]; with masks and mixup -0.7 [-12.5, 11.1]: cannot tell, for any.
mAP of the five families: plain 64.6 (sd 1.6); +3.8 [-7.3, 14.9], +2.5 [-10.6, 15.6] and -0.1 [-6.8, 6.5].
"""

from audio_cls import Ablation, Experiment, Published

BASE = Experiment.parse(
    {
        "data": {
            "corpus": "esc10-mix",
            "clip_seconds": 4.0,
            "crop": "centre",
            "pad": "tile",
            "split": {"kind": "folds"},
        },
        "features": {"kind": "log_mel", "n_fft": 1024, "hop_length": 512, "n_mels": 64, "normalise": "global"},
        "model": {"kind": "cnn", "widths": [8, 16, 32], "pooled": [4, 4], "head": [128, 64], "dropout": [0.3, 0.2]},
        "loss": {"kind": "bce"},
        "optimizer": {"kind": "adam", "lr": 1e-3},
        "schedule": {"kind": "cosine"},
        "training": {"epochs": 12, "batch_size": 32, "metric": "val/map"},
    }
)

WEIGHTED_FOCAL = {"loss": {"kind": "focal", "gamma": 2.0, "class_weights": "inverse", "prior_bias": True}}
OVERSAMPLING = {"sampling.kind": "rarest_label"}
MASKS = {"augment.specaugment": {"n_time_masks": 1, "n_freq_masks": 1, "p": 0.5}}
MIXUP = {"augment.mixup": {"alpha": 0.3}}

EVALUATION = {"plain": (0.327, 0.646, 1.934, 0.555), "weighted-focal": (0.368, 0.668, 2.058, 0.581)}
EVALUATION |= {"oversampling": (0.414, 0.707, 2.097, 0.610), "oversampling-augmented": (0.405, 0.700, 2.096, 0.605)}

ABLATION = Ablation(
    "s2-abandoned",
    base=BASE,
    reference="plain",
    arms={
        "plain": {},
        "weighted-focal": WEIGHTED_FOCAL,
        "oversampling": OVERSAMPLING,
        "oversampling-augmented": {**OVERSAMPLING, **MASKS, **MIXUP},
    },
    metric=("val/map", "val/family_map", "val/lwlrap", "val/d_prime"),
    seeds=range(2),
    folds="all",
    question="Does a remedy for rare labels help a smaller network that always sees the same part of a clip?",
    published=[
        Published(
            metric, value, arm=arm, n_clips=10231, on="the evaluation set of FSD50K", source="S2's report on FSD50K"
        )
        for arm, values in EVALUATION.items()
        for metric, value in zip(("map", "family_map", "d_prime", "lwlrap"), values)
    ],
)
