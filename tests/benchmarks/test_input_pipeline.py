"""The rows of the input pipeline's benchmark, once each."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.input_pipeline import OURS, alternate, find_peers, peer, report
from configs.imagenet import get_config
from resnet_jax.data.imagenet.loaders import default_workers
from resnet_jax.errors import UserError

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "imagenet_sample"


@pytest.mark.long
def test_every_way_is_measured(capsys, monkeypatch):
    def small(net):
        config = get_config(net)
        config.model.stage_sizes, config.model.widths = (1, 1), (8, 8)
        return config

    monkeypatch.setattr("configs.imagenet.get_config", small)
    if not SAMPLE.is_dir():
        pytest.skip("shared/data/imagenet_sample is not there")
    assert main(["input_pipeline", f"--data_dir={SAMPLE}", "--seconds=0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    assert {row["files"] for row in rows} == {"original", "prepared, 256"} and len(rows) >= 10
    assert all(row["images_per_second_per_core"] > 20 for row in rows)
    assert [row["times_as_fast"] for row in rows if row["way"] == OURS] == [1, 1]
    assert {row["threads"] for row in found["threads"]} == {1, default_workers()}
    assert found["memory"]["images"] == 32 * found["memory"]["batches"]
    assert 0 <= found["data_wait"]["percent"] <= found["data_wait"]["most_percent"] <= 100


def test_cores_are_rounded_up():
    row = {"way": "a", "files": "original", "kilobytes": 110.2, "images_per_second_per_core": 752.0,
           "times_as_fast": 1.257}  # fmt: skip
    memory = {"batches": 10, "images": 320, "grown_mib": 0.25}
    wait = {"images_per_second": 99.7, "percent": 1.26, "most_percent": 4.0}
    text = report({"rows": [row], "threads": [], "memory": memory, "data_wait": wait})
    assert "| a | original | 110 | 752 | 1.26 | 4 | 10 |" in text
    assert "(320 images) memory grew by 0.2 MiB" in text and "100 images/s, waited 1.3 %" in text


def test_rounds_are_of_all_ways_in_turn():
    order = []
    ways = {name: lambda name=name: order.append(name) or 1.0 for name in (OURS, "b")}
    assert alternate(ways, 0) == {OURS: [1.0], "b": [1.0]}
    assert alternate(ways, 0.01)["b"] and order[::2] == [OURS] * (len(order) // 2)


def test_a_peer_answers_each_round(tmp_path):
    """A Python in which `torch` and `torchvision` are stand-ins, which say what they are given."""
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text("__version__ = '1'\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert find_peers([str(python)])["torch"] == str(python)
    with pytest.raises(UserError, match="torch in .* failed: .*no attribute 'utils'"):
        (tmp_path / "task").write_bytes(pickle.dumps({"paths": [], "edges": [], "size": 8, "workers": 1}))
        with peer(str(python), "torch", tmp_path / "task"):
            pass
    (tmp_path / "torch.py").write_text(
        "import types\n__version__ = '1'\n"
        "loader = lambda data, **_: [range(2 * len(data))]\n"
        "utils = types.SimpleNamespace(data=types.SimpleNamespace(DataLoader=loader))\n"
    )
    (tmp_path / "task").write_bytes(pickle.dumps({"paths": ["a"], "edges": [], "size": 8, "workers": 1}))
    with peer(str(python), "torch", tmp_path / "task") as once:
        assert once() > 0 and once() > 0


def test_mistakes(tmp_path, capsys):
    assert main(["input_pipeline", f"--data_dir={tmp_path}/none"]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["input_pipeline", f"--data_dir={tmp_path}", f"--peer_python={tmp_path}/none"]) == 2
    assert "/none cannot be run: No such file" in capsys.readouterr().err
