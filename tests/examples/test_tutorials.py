"""The code of the tutorials runs as it stands on the page."""

import re
from pathlib import Path

import numpy as np
import pytest

import resnet_jax

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"


def run_page(name: str) -> dict:
    """Runs the Python blocks of a page one after another; returns the names that they leave."""
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", (TUTORIALS / name).read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, name, "exec"), names)
    return names


def test_nets_from_flax_nnx():
    names = run_page("flax_nnx.md")
    assert names["logits"].shape == (8, 10) and names["kernel"].shape == (3, 3, 16, 16)
    assert names["losses"][-1] < names["losses"][0]
    fresh = names["model"].init(names["jax"].random.key(1), names["images"])
    assert np.array_equal(names["net"].head["kernel"], fresh["params"]["head"]["kernel"])


@pytest.mark.long
def test_first_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page("first_run.md")
    assert (tmp_path / "runs/plain20/result.json").is_file()


def test_own_data_writes_two_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page("own_data.md")
    assert {path.parent.name for path in Path("runs/digits").glob("*/*.png")} == {"even", "odd"}
    assert len(list(Path("runs/digits").glob("*/*.png"))) == 400


def test_own_net(monkeypatch):
    """Both blocks: fields that are changed, and a row for the table of names."""
    from resnet_jax.models import registry

    monkeypatch.setattr(registry, "VARIANTS", dict(registry.VARIANTS))
    blocks = re.findall(r"^```python\n(.*?)^```", (TUTORIALS / "own_net.md").read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(blocks[0], names)
    assert names["logits"].shape == (8, 10) and "stage1/block1/conv1" in names["features"]
    exec(blocks[1], vars(registry).copy())
    assert resnet_jax.summarize(resnet_jax.create_model("cifar_gated14"), "gated", 32).depth == 14


def test_own_config(tmp_path, monkeypatch):
    """The file of the page is found and read, from a folder that is not the checkout's."""
    from resnet_jax.cli.flags import parse_with_config, verb_flags

    block = re.search(r"^```python\n(.*?)^```", (TUTORIALS / "own_config.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.py").write_text(block[1])
    monkeypatch.chdir(tmp_path)
    values = verb_flags(("string", "workdir", None, ""))
    config = parse_with_config(values, "train", ["--config=mine.py:resnet32", "--workdir=x"], "workdir")
    assert (config.model.name, config.steps, config.schedule.boundaries) == ("cifar_resnet32", 2000, (0.6, 0.8))


def test_own_table():
    """The file of rows is a table whose configs can be run."""
    from experiments.experiment import row_config
    from resnet_jax.training.config_checks import validate_config

    block = re.search(r"^```python\n(.*?)^```", (TUTORIALS / "own_table.md").read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {}
    exec(block[1], names)
    for row in names["EXPERIMENT"].rows:
        config = row_config(row)
        validate_config(config)
        assert config.model.widths == row.changes["model.widths"]
