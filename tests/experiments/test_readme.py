"""README.md and docs/ say what the committed records say."""

import json

import pytest

from experiments import ablation, readme
from resnet_jax.training.run_folder import RunFolder


@pytest.mark.long
def test_pages_are_what_the_records_give():
    """A number changed by hand, or a record without its table, fails here: `make readme` mends it."""
    pages = readme.regenerated()
    assert set(pages) == {"README.md", "docs/nets.md", "docs/results.md", "docs/detection.md", "docs/segmentation.md"}
    for page, text in pages.items():
        assert text == (readme.ROOT / page).read_text(), page


def test_committed_records_show_the_claim():
    """Plain-56 far worse in training than plain-20; ResNet-56 not above ResNet-20 by more than two points."""
    errors = {}
    for row in ablation.ROWS:
        metrics = RunFolder(readme.ROOT / readme.DIGITS / row.name).result().metrics
        errors[row.name] = metrics["train_error"]
        assert f"| {metrics['test_error']:.2f} |" in " ".join((readme.ROOT / "README.md").read_text().split())
    assert errors["plain56"] > errors["plain20"] + 20
    assert errors["resnet56"] < errors["resnet20"] + 2


def test_committed_records_are_of_todays_configs():
    """A changed recipe makes the committed numbers another recipe's."""
    from configs.digits import get_config
    from resnet_jax.config import config_hash

    for row in ablation.ROWS:
        result = json.loads((readme.ROOT / readme.DIGITS / row.name / "result.json").read_text())
        assert result["config_hash"] == config_hash(get_config(row.name)), row.name
