"""The names of ImageNet's classes, against two packages that have them where they are installed."""

import pytest

from resnet_jax.data.imagenet.wnids import class_names, label_of, official_wnids


def test_a_name_for_each_class_and_all_different():
    names = class_names()
    assert len(names) == len(set(names)) == len(official_wnids()) == 1000
    for wnid, name in (
        ("n01440764", "tench"),
        ("n02124075", "Egyptian cat"),
        ("n02512053", None),
        ("n15075141", "toilet tissue"),
    ):
        if name:
            assert names[label_of(wnid)] == name


def test_torchvision_has_the_same():
    meta = pytest.importorskip("torchvision.models._meta", reason="torchvision is not installed")
    assert list(class_names()) == meta._IMAGENET_CATEGORIES


def test_timm_has_them_among_wordnets_lemmas_of_each_id():
    data = pytest.importorskip("timm.data", reason="timm is not installed")
    info = data.ImageNetInfo()
    assert tuple(info.label_names()) == official_wnids()
    differ = []
    for label, name in enumerate(class_names()):
        lemmas = [lemma.strip().lower() for lemma in info.index_to_description(label).split(",")]
        if name.lower() not in lemmas:
            differ.append(name)
    assert differ == ["crane bird", "maillot tank suit"]
