"""A run says what it was trained on, and does not go on with other images, or the same in another order, unasked."""

import dataclasses
import json

import pytest

from resnet_jax.data import cifar
from resnet_jax.data.sources import load_dataset
from resnet_jax.errors import UserError
from resnet_jax.training.loop import fit
from resnet_jax.training.result import DatasetInfo
from resnet_jax.training.run_folder import RunFolder
from tests.data.cifar_files import binary_files, python_files, write
from tests.data.test_cifar import TEST, TRAIN, examples


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """CIFAR-10 of 50 and 20 images, in two versions."""
    small = dataclasses.replace(cifar.SETS["cifar10"], train=TRAIN, test=TEST)
    monkeypatch.setitem(cifar.SETS, "cifar10", small)
    monkeypatch.setattr(cifar, "MOST_BESIDES", 10_000)
    load_dataset.cache_clear()
    parts = [examples("cifar10", TRAIN, 1), examples("cifar10", TEST, 2)]
    yield (
        write(tmp_path / name, files("cifar10", *parts)) for name, files in (("a", binary_files), ("b", python_files))
    )
    load_dataset.cache_clear()


def test_a_run_goes_on_with_the_images_that_it_began_with(sets, tmp_path, tiny_config):
    binary, python = sets
    run = tmp_path / "run"

    def train(place, force=(), steps=2):
        (run / "result.json").unlink(missing_ok=True)
        load_dataset.cache_clear()
        config = tiny_config(data__name="cifar10", data__data_dir=str(place), steps=steps, eval_every=2)
        return fit(config, run, force=force)

    first = train(binary)
    facts = json.loads((run / "data.json").read_text())
    assert facts["source"] == f"binary version in {binary}/cifar-10-batches-bin"
    assert facts["classes"] == list(cifar.SETS["cifar10"].classes)
    assert train(python).metrics == first.metrics, "the same examples in the same order"
    assert json.loads((run / "data.json").read_text()) == facts

    other = binary / "cifar-10-batches-bin/data_batch_1.bin"
    changed = bytearray(other.read_bytes())
    changed[0] = (changed[0] + 1) % 10  # one label
    other.write_bytes(changed)
    with pytest.raises(UserError, match=r"other images, labels .*binary version.*--force=data.data_dir"):
        train(binary)
    with pytest.raises(UserError, match=r"no step would be done with the changed data.fingerprint"):
        train(binary, ["data.data_dir"])
    assert json.loads((run / "data.json").read_text()) == facts, "what its weights were trained on"
    moved = binary.rename(binary.with_name("elsewhere"))
    result = train(moved, ["data.data_dir", "steps"], steps=4)
    again = json.loads((run / "data.json").read_text())
    prints = [facts["fingerprint"], again["fingerprint"]]
    (change,) = result.changes
    assert change["after_step"] == 2 and change["fields"]["data.fingerprint"] == prints and prints[0] != prints[1]
    assert RunFolder(run).config().data.data_dir == str(moved), "where `evaluate` finds the images now"

    # What a version wrote that kept no fingerprint is not compared.
    earlier = json.dumps({name: value for name, value in facts.items() if name not in ("source", "fingerprint")})
    (run / "data.json").write_text(earlier)
    RunFolder(run).write_dataset_info(DatasetInfo.from_json(again))
    assert (run / "data.json").read_text() == earlier
    (run / "data.json").write_text("{")
    RunFolder(run).write_dataset_info(DatasetInfo.from_json(again))
    assert json.loads((run / "data.json").read_text()) == again
