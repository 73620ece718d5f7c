"""The rows of the input pipeline's benchmark, once each."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.input_pipeline import report

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "imagenet_sample"


def test_every_way_is_measured(capsys):
    if not SAMPLE.is_dir():
        pytest.skip("shared/data/imagenet_sample is not there")
    assert main(["input_pipeline", f"--data_dir={SAMPLE}", "--seconds=0", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["files"] for row in rows} == {"original", "prepared, 256"} and len(rows) >= 10
    assert all(row["images_per_second_per_core"] > 20 for row in rows)


def test_cores_are_rounded_up():
    row = {"way": "a", "files": "original", "kilobytes": 110.2, "images_per_second_per_core": 752.0}
    assert report([row]).endswith("| a | original | 110 | 752 | 4 | 10 |")


def test_mistakes(tmp_path, capsys):
    assert main(["input_pipeline", f"--data_dir={tmp_path}/none"]) == 2
    assert "is not a folder" in capsys.readouterr().err
