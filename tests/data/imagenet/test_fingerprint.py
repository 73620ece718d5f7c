"""Sources are told apart by their images, labels and order, in whichever form they are stored."""

import numpy as np
import pytest

from resnet_jax.data.imagenet.fingerprint import fingerprint
from resnet_jax.data.imagenet.shards import ShardSource
from resnet_jax.data.streaming import open_splits
from resnet_jax.data.tfds import open_tfds
from tests.data.imagenet.conftest import WNIDS, fill, picture, run
from tests.data.test_tfds import prepare


@pytest.mark.parametrize("form", ["folders", "shards"])
def test_another_name_label_or_image_changes_it(form, tiny_folder, tmp_path):
    def found(out):
        if form == "folders":
            return fingerprint(open_splits("image_folder", str(tiny_folder)).train)
        run(tiny_folder, tmp_path / out)
        return fingerprint(ShardSource(tmp_path / out, "train"))

    whole = found("a")
    assert found("b") == whole and len(whole) == 12
    first = tiny_folder / f"train/{WNIDS[0]}/{WNIDS[0]}_0.JPEG"
    seen = {whole}
    for number, change in enumerate((
        lambda: first.rename(first.with_name("a.JPEG")),
        lambda: first.with_name("a.JPEG").rename(tiny_folder / f"train/{WNIDS[1]}/a.JPEG"),
        lambda: fill(tiny_folder, {f"train/{WNIDS[2]}/new.JPEG": picture(77)}),
    )):  # fmt: skip
        change()
        seen.add(found(f"c{number}"))
    assert len(seen) == 4


def test_sets_of_tfds_are_told_apart(tmp_path):
    one, other = (prepare(tmp_path / str(n), "ants", {"train": n}, [(20, 30), (31, 17)]) for n in (6, 8))
    seen = set()
    for where in (one, other):
        source = open_tfds("tfds:ants", where).sources(0.5, "auto").train
        seen |= {fingerprint(source), fingerprint(source)}
        assert not np.array_equal(source.places, np.arange(len(source)))
    assert len(seen) == 2
