"""Finished runs of the papers are copied to results/, and docs/results.md shows them."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from experiments import ablation, readme, registry
from experiments.__main__ import main
from experiments.experiment import row_config, runnable
from experiments.publish import CURVES, publish
from experiments.registry import load
from resnet_jax.config import config_hash
from resnet_jax.errors import UserError
from resnet_jax.training.run_record import RunRecord
from tests.experiments.fakes import POINTS, write_row, write_run

SCALE = 0.005


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with the papers' runs alone."""
    monkeypatch.setattr(readme, "BLOCKS", (("docs/results.md", "papers", readme.paper_tables),))
    (tmp_path / "root/docs").mkdir(parents=True)
    (tmp_path / "root/docs/results.md").write_text("above\n<!-- begin papers -->\n<!-- end papers -->\nbelow\n")
    return tmp_path / "root"


@pytest.fixture
def source(tmp_path):
    """Two finished runs of figure 6, shortened; one that is not finished; one that no table has."""
    rows = {row.name: row for row in load("he2015.figure6").rows}
    source = tmp_path / "runs"
    write_row(source, rows["plain20"], [9.5], scale=SCALE)
    config = row_config(rows["resnet20"], 0, SCALE)
    config.data.data_dir = "/somewhere/of/mine"
    write_run(source / "deeper", config, 8.5)
    write_row(source, rows["resnet56"], [7.5], scale=SCALE, finished=False)
    write_run(source, row_config(rows["plain56"], 0, SCALE, {"batch_size": 7}), 1.0)
    return source


def test_papers_runs(source, root):
    written = publish(source, root)
    assert sorted(path.name.split("-")[0] for path in written) == ["cifar_plain20", "cifar_resnet20"]
    assert {path for path in (root / "results/papers").iterdir() if path.is_dir()} == set(written)
    for folder in written:
        record = RunRecord(folder)
        config, result, lines = record.config(), record.result(), record.lines()
        assert config_hash(config) == result.config_hash == folder.name.split("-")[-1]
        assert len(lines) == 2 * POINTS and all(set(line) <= set(CURVES) for line in lines)
        assert lines[-1]["test_error"] == pytest.approx(result.metrics["test_error"], rel=1e-5)
        assert not any("/somewhere" in path.read_text() for path in folder.iterdir())
    (plain,) = (root / "results/papers").glob("cifar_plain20*")
    assert {path.name for path in plain.iterdir()} == {
        "config.json", "metrics.jsonl", "result.json", "responses.json"
    }  # fmt: skip
    text = (root / "docs/results.md").read_text()
    assert (
        text.startswith("above\n")
        and text.endswith("\nbelow\n")
        and readme.regenerated(root) == {"docs/results.md": text}
    )
    assert "plain-20 (0.5 % of the paper's iterations)" in text and "9.50" in text and "8.50" in text
    assert "a share of the paper's iterations, or of other images, are no reproduction" in text
    assert "2 cores of Xeon, Python 3.12.1, JAX 0.12.0, commit 0123456789ab, 2026-01-02; seed 0." in text
    assert "plain-56" not in text and "ResNet-56" not in text
    assert Image.open(root / "results/papers/he2015.figure6-0.5percent.png").size[0] > 1000
    assert "(../results/papers/he2015.figure6-0.5percent.png)" in text

    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    publish(source, root)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (plain / "result.json").write_text((plain / "result.json").read_text().replace("9.5", "9.6"))
    assert readme.regenerated(root)["docs/results.md"] != text


def test_what_analyses_found(source, root):
    """It comes with its run, and the page says how it was measured and draws it; a half-made surface stays behind."""
    write_row(source, {row.name: row for row in load("he2015.figure6").rows}["plain56"], [60.5], scale=SCALE)
    (plain,) = (path.parent for path in source.glob("*plain56*/result.json") if "60.5" in path.read_text())
    errors = [60.5, 88.5, 90.5]
    lesion = {
        "settings": {"step": 320, "repeats": 3, "images": 200, "seed": 0},
        "error": 60.5,
        "single": [{"block": f"stage1/block{i}", "changes_shape": False, "error": 89.5} for i in (1, 2)],
        "removed": [{"count": 2, "errors": errors}],
        "exchanged": [{"count": 1, "errors": errors, "kendall_tau": [0.5, 0.6, 0.7]}],
    }
    (plain / "lesion.json").write_text(json.dumps(lesion))
    surface = {
        "settings": {"points": 3},
        "x": [-1, 0, 1],
        "y": [-1, 0, 1],
        "loss": [[1, 1, 1]],
        "error": [[90, 90, 90]],
    }
    (plain / "surface.json").write_text(json.dumps(surface))
    publish(source, root)
    (record,) = (root / "results/papers").glob("cifar_plain56*")
    assert json.loads((record / "lesion.json").read_text()) == lesion
    assert not (record / "surface.json").exists()
    text = (root / "docs/results.md").read_text()
    part = text[text.index("**veit2016.lesion") :]
    assert "plain-56 (0.5 % of the paper's iterations): repeats=3, images=200, seed=0. Veit et al. 2016" in part
    assert "ResNet-20" not in part and "li2018" not in part and "| net" not in part
    assert Image.open(root / "results/papers/veit2016.lesion-0.5percent.png").size[0] > 1000


def test_an_analysis_that_the_run_has_no_longer_goes(source, root):
    """A run of the same config was made again: what was found in the earlier one is not of it."""
    publish(source, root)
    (place,) = (root / "results/papers").glob("cifar_plain20*/responses.json")
    for path in source.rglob("responses.json"):
        path.unlink()
    publish(source, root)
    assert not place.exists() and (place.parent / "result.json").exists()


def test_results_are_no_source(source, root, tmp_path):
    (place, *_) = publish(source, root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for folder in (place.parent, place, root / "results"):
        with pytest.raises(UserError, match="is where records are copied to"):
            publish(folder, root)
    assert len(publish(tmp_path, root)) == 2  # results/ lies in it, with the same runs
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_ablation_is_that_of_its_config(root, tmp_path):
    def write(**fields):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for row in ablation.ROWS:
            config = ablation.get_config(row.name)
            config.update(fields)
            shutil.move(write_run(tmp_path / "new", config, 5.0), folder / row.name)
        return folder

    whole = write()
    assert [path.name for path in publish(whole, root)] == [row.name for row in ablation.ROWS]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="plain20 is not a run of configs/digits.py:plain20"):
        publish(write(steps=54), root)
    changes = {"changes": [{"after_step": 7, "fields": {"steps": [54, 540]}}]}
    (whole / "resnet56" / "changes.json").write_text(json.dumps(changes))
    with pytest.raises(UserError, match="resnet56 is not published: its first 7 steps were done with steps=54"):
        publish(whole, root)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_nothing_to_publish(source, root, tmp_path, capsys):
    for path in source.rglob("result.json"):
        path.unlink()
    with pytest.raises(UserError, match="holds no finished run of the papers' tables"):
        publish(source, root)
    assert readme.paper_tables(root) == readme.NONE_PUBLISHED
    assert main(["publish", f"--source={tmp_path}/nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_committed_records_are_of_todays_rows():
    """A changed recipe makes the committed numbers another recipe's; no record says where it was made."""
    from experiments.run_index import index_runs

    index = index_runs(readme.ROOT / readme.PAPERS)
    rows = [row for name in registry.NAMES for row in runnable(load(name))]
    known = {found.folder for scale in index.scales for row in rows for found in index.find(row, scale)}
    for folder in (readme.ROOT / readme.PAPERS).glob("*/"):
        assert folder in known and RunRecord(folder).config().data.data_dir is None, folder
        assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    for filled in readme.published(readme.ROOT):
        assert all((readme.ROOT / path).exists() for path, _, _ in readme.pictures(filled))
