"""Views of the labels and parts of a split: what they hold, what they refuse, and that recorded experiments stay as they were."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from audio_cls.core.errors import UserError
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.list_split import Lists
from audio_cls.data.packing import prepare
from audio_cls.data.splits import Official
from audio_cls.data.subsets import Subset
from audio_cls.data.views import LabelView
from audio_cls.experiment import Experiment
from tests.data import published_layouts as layouts


@pytest.fixture(scope="module")
def fsd(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("fsd")
    manifest = sources.read(layouts.fsd50k(root / "set"))
    return prepare(manifest, root / "corpus", workers=1, on_bad="refuse").corpus


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("tut")
    return prepare(sources.read(layouts.tut2017(root / "set")), root / "corpus", workers=1, on_bad="refuse").corpus


def view(corpus: Corpus, kind: str, **fields: Any) -> Corpus:
    return LabelView.parse({"kind": kind, **fields}).apply(corpus)


def names(corpus: Corpus) -> dict[str, list[str]]:
    return {clip.id: list(clip.labels) for clip in corpus.clips}


def test_one_class_against_the_rest(fsd: Corpus) -> None:
    two = view(fsd, "one_against_rest", target="Music")
    assert (two.classes, two.task, len(two)) == (("other", "Music"), "multiclass", len(fsd))
    assert {name for name, labels in names(two).items() if labels == ["Music"]} == {"64760", "16401", "175151"}
    one = view(fsd, "one_against_rest", target="Music", task="multilabel")
    assert one.targets[:, 0].tolist() == two.targets[:, 1].tolist()
    assert len({fsd.digest, two.digest, one.digest, view(fsd, "one_against_rest", target="Cat").digest}) == 4
    assert view(fsd, "one_against_rest", target="Music").digest == two.digest


def test_families(fsd: Corpus) -> None:
    several = view(fsd, "families")
    assert several.task == "multilabel"
    assert set(several.classes) == {"Animal", "Music", "Source-ambiguous sounds"}
    assert sorted(names(several)["237"]) == ["Animal", "Source-ambiguous sounds"]  # Hiss has two parents
    single = view(fsd, "families", several="leave_out")
    assert single.task == "multiclass"
    assert set(names(single)) == set(names(fsd)) - {"237", "37199"}
    assert np.array_equal(single.samples_of(3), fsd.samples_of(fsd.ids.index(single.ids[3])))
    assert set(names(view(fsd, "families", families=("Music",)))) == {"64760", "16401", "175151"}


def test_selection_and_mapping(scenes: Corpus) -> None:
    two = view(scenes, "select", classes=("forest_path", "beach"))
    assert two.classes == ("forest_path", "beach")
    assert Counter(labels[0] for labels in names(two).values()) == {"beach": 8, "forest_path": 8}
    assert [len(side) for side in Lists(fold=3).assign(two).sides().values()] == [
        10,
        4,
        0,
    ]  # lists of the clips that are left
    mapped = view(scenes, "mapped", pairs=("beach=outside", "forest_path=outside"), others="inside")
    assert mapped.classes == ("outside", "inside")
    assert mapped.class_counts().tolist() == [16, 8]
    assert mapped.waveform(9).tolist() == scenes.waveform(9).tolist()


def test_selection_of_a_multilabel_corpus(fsd: Corpus) -> None:
    assert len(view(fsd, "select", classes=("Cat", "Hiss"))) == 3
    kept = view(fsd, "select", classes=("Cat", "Hiss"), unlabelled="keep")
    assert len(kept) == len(fsd)
    assert names(kept)["175151"] == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "one_against_rest", "target": "Musik"}, r"data.labels.target: 'fsd50k' has no 'Musik'. .*Did you mean 'Music'"),
        ({"kind": "one_against_rest", "target": "Music", "other": "Music"}, r"data.labels.other='Music' is the target's name"),
        ({"kind": "families", "families": ("Animals",)}, r"data.labels.families: .* Did you mean 'Animal'"),
        ({"kind": "select", "classes": ("Dog",)}, r"data.labels.classes: 'fsd50k' has no 'Dog'"),
        ({"kind": "mapped", "pairs": ("Cat=a", "Cat=b")}, r"'Cat' becomes both 'a' and 'b'"),
        ({"kind": "mapped", "pairs": ("Cat=",)}, r"'Cat=' gives 'Cat' no name"),
        ({"kind": "mapped", "pairs": ()}, r"no class is named"),
    ],
)  # fmt: skip
def test_views_that_do_not_fit(fsd: Corpus, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelView.parse(fields).apply(fsd)


def test_views_of_a_corpus_without_families_or_with_one_class(scenes: Corpus) -> None:
    with pytest.raises(UserError, match=r"'tut2017' records no families; prepare it with its ontology"):
        view(scenes, "families")
    with pytest.raises(UserError, match="have one class"):
        view(scenes, "select", classes=("beach",))


def test_a_share_of_the_training_clips(scenes: Corpus) -> None:
    whole = Lists(fold=1).assign(scenes)
    half = Subset(share=0.5).apply(scenes, whole)
    assert set(half.train) < set(whole.train)
    assert np.array_equal(half.validation, whole.validation)
    assert scenes.class_counts(half.train).tolist() == pytest.approx([3, 3, 3], abs=1)
    groups = {scenes.groups[i] for i in half.train}
    assert all(i in half.train for i in whole.train if scenes.groups[i] in groups)  # whole groups
    assert Subset(share=0.5).apply(scenes, whole).digest == half.digest
    assert len({whole.digest, half.digest, Subset(share=0.5, seed=1).apply(scenes, whole).digest}) == 3
    assert len(Subset(share=0.5, sides="train_validation").apply(scenes, whole).validation) == 4


def test_a_number_for_each_class(scenes: Corpus, fsd: Corpus) -> None:
    whole = Lists(fold=1).assign(scenes)
    few = Subset(per_class=3).apply(scenes, whole)
    assert scenes.class_counts(few.train).tolist() == [4, 4, 4]  # groups of two clips are kept whole
    official = Official().assign(fsd)
    assert Subset(per_class=50).apply(fsd, official).digest == official.digest
    with pytest.raises(UserError, match="set share or per_class, not both"):
        Subset(per_class=3, share=0.5).apply(scenes, whole)
    with pytest.raises(UserError, match=r"share=0.001 of 'tut2017' leaves no train clips"):
        Subset(share=0.001).apply(scenes, whole)


def test_a_share_smaller_than_every_group_keeps_one_of_them(scenes: Corpus) -> None:
    whole = Lists(fold=1).assign(scenes)
    subset = Subset(share=1.5 / len(whole.train))
    few = subset.apply(scenes, whole)
    assert len({scenes.groups[i] for i in few.train}) == 1
    assert few.train.tolist() == [i for i in whole.train if scenes.groups[i] == scenes.groups[few.train[0]]]
    assert subset.apply(scenes, whole).digest == few.digest


def test_experiments_without_a_view_keep_their_digest() -> None:
    plain = Experiment()
    assert "labels" not in plain.data.to_dict()
    assert "subset" not in plain.data.to_dict()
    changed = plain.override({"data.labels": "one_against_rest", "data.labels.target": "dog", "data.subset.share": 0.1})
    assert changed.digest() != plain.digest()
    assert Experiment.from_json(changed.to_json()) == changed


def test_a_description_of_families_and_of_views(fsd: Corpus) -> None:
    from audio_cls.report.description import describe

    whole = describe(fsd)
    assert whole.by_family == {"Animal": 3, "Music": 3, "Source-ambiguous sounds": 2}  # 37199 is of two families
    assert whole.formats == {"PCM_16": 6}
    titles = {table.title: table for table in whole.tables()}
    assert titles["clips by family"].rows[0] == ("Music", 3, 0.5)
    two = describe(view(fsd, "one_against_rest", target="Music"))
    assert (two.class_counts, two.by_family) == ((3, 3), {"Music": 3})
    assert set(two.baselines) >= {"majority accuracy", "random accuracy"}
    assert "Animal" in describe(view(fsd, "families")).classes
