"""The hub's files, from a cache that is made here: there is no network in tests."""

import json

import huggingface_hub
import pytest
import safetensors.numpy
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from resnet_jax.errors import UserError
from resnet_jax.interop import hub
from resnet_jax.training.load_weights import import_weights
from tests.interop import files_made

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache as the client lays it, which a stand-in for its download reads."""
    folder = tmp_path / "models--who--net" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    asked = []

    def download(repo, name, revision=None, local_files_only=False):
        asked.append((repo, name, revision))
        if not (folder / name).is_file():
            raise EntryNotFoundError("404: no such entry")
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    return folder, asked


def write(folder, name="model.safetensors"):
    fields = {"stage_sizes": (1, 1), "widths": (4, 8), "num_classes": 3}
    tensors = files_made.tensors_of("akamaster", "cifar_resnet20", **fields)
    (folder / name).write_bytes(safetensors.numpy.save(tensors))


def test_the_revision_and_the_cache_are_said(cache):
    folder, asked = cache
    write(folder)
    found = import_weights("hf:who/net@main")
    assert asked[0] == ("who/net", "model.safetensors", "main")
    assert found.weights.source["hub"] == "who/net" and found.weights.source["revision"] == COMMIT
    assert any(COMMIT in note and str(folder) in note for note in found.notes)


def test_a_file_by_its_name(cache):
    folder, asked = cache
    write(folder, "other.safetensors")
    assert hub.fetch("hf:who/net:other.safetensors").file == "other.safetensors"
    with pytest.raises(UserError, match=r"hf:who/net: it has no model.safetensors or pytorch_model.bin"):
        hub.fetch("hf:who/net")


def test_weights_in_several_files_and_the_facts_beside_them(cache):
    folder, asked = cache
    write(folder, "model-00001-of-00001.safetensors")
    names = safetensors.numpy.load_file(folder / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text('{"architecture": "resnet18", "label_names": ["a", "b", "c"]}')
    assert import_weights("hf:who/net").weights.classes == ("a", "b", "c")
    assert [name for _, name, _ in asked] == [
        "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "model-00001-of-00001.safetensors",
        "config.json", "preprocessor_config.json",
    ]  # fmt: skip
    (folder / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(UserError, match="names model-00001-of-00001.safetensors, which is not there"):
        hub.fetch("hf:who/net")


def test_a_file_in_a_folder_and_what_lies_beside_it(cache):
    """As diffusers and repositories of several nets have them; another net's facts lie at the top."""
    folder, asked = cache
    (folder / "small").mkdir()
    write(folder / "small", "model-00001-of-00001.safetensors")
    names = safetensors.numpy.load_file(folder / "small/model-00001-of-00001.safetensors")
    places = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    (folder / "small/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "small/config.json").write_text('{"architecture": "resnet18", "label_names": ["a", "b", "c"]}')
    (folder / "config.json").write_text('{"architecture": "resnet18", "label_names": ["x", "y", "z"]}')
    weights = import_weights("hf:who/net:small/model.safetensors.index.json").weights
    assert weights.classes == ("a", "b", "c")
    assert [name for _, name, _ in asked] == [f"small/{name}" for name in (
        "model.safetensors.index.json", "model-00001-of-00001.safetensors", "config.json", "preprocessor_config.json",
    )]  # fmt: skip


@pytest.mark.parametrize("address", ["hf:net", "hf:who/net/model.bin", "hf:", "hf:who/net@"])
def test_an_address_that_is_none(address):
    with pytest.raises(UserError, match="must be hf:OWNER/NAME"):
        hub.fetch(address)


def test_without_a_network_there_is_one_line_and_no_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.socket, "create_connection", lambda *a, **k: (_ for _ in ()).throw(OSError("no route")))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def download(repo, name, revision=None, local_files_only=False):
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match="cannot be reached") as error:
        hub.fetch("hf:who/net")
    assert asked == [True] and "\n" not in str(error.value)
