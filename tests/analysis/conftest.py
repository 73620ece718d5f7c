"""One trained tiny run, residual and plain, for all tests of this folder."""

import shutil

import pytest

from resnet_jax.training.loop import fit


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folders of two trained tiny runs: (residual, plain), each [2, 2, 1] units. Copy before writing into them."""
    from configs.digits import get_config

    folders = []
    for net in ("resnet20", "plain20"):
        config = get_config(net)
        config.model.stage_sizes, config.model.widths = (2, 3, 1), (4, 8, 8)
        config.update({"steps": 6, "batch_size": 16, "log_every": 2, "eval_every": 3, "checkpoint_every": 3})
        folder = tmp_path_factory.mktemp("runs") / net
        fit(config, folder)
        folders.append(folder)
    return tuple(folders)


@pytest.fixture
def runs(trained, tmp_path):
    """Copies of the trained runs to write into."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in trained)


@pytest.fixture
def residual(runs):
    return runs[0]


@pytest.fixture
def plain(runs):
    return runs[1]
