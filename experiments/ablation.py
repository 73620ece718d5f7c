"""The degradation ablation (He et al. 2015, section 4.2 and figure 6) on real images that need no download.

Made deeper, a plain net trains worse; with identity shortcuts (option A, no extra parameters) it does not.
"""

from collections.abc import Sequence
from pathlib import Path

from configs.digits import get_config
from experiments.experiment import Row
from resnet_jax.report.page import write_report
from resnet_jax.report.run_data import Run, load_run
from resnet_jax.training.loop import fit
from resnet_jax.training.progress import ProgressDisplay

TITLE = "Plain and residual nets, made deeper"

INTRO = """\
Four nets of 6n+2 layers, trained alike on scikit-learn's handwritten digits (1,437 training and 360 test images of \
8x8 pixels) with the recipe of He et al. 2015, section 4.2, scaled down: configs/digits.py. A plain net and its \
residual twin have the same layers and the same number of parameters; the residual net adds identity shortcuts \
(option A).

What to look for is the dashed lines. If more layers did harm by overfitting, the 56-layer plain net would still fit \
its training set at least as well as the 20-layer one. The paper's finding is that it fits it worse, and that with \
shortcuts the same 56 layers train."""


#: Their names are those of the nets for the config, and of the runs' folders.
ROWS = (
    Row("plain20", "plain-20", group="plain"),
    Row("plain56", "plain-56", group="plain"),
    Row("resnet20", "ResNet-20", group="residual"),
    Row("resnet56", "ResNet-56", group="residual"),
)


def run(out: Path, progress: ProgressDisplay, steps: int | None = None, rows: Sequence[Row] = ROWS) -> None:
    """Trains what is missing under `out`; finished runs are left alone and killed ones continue.

    Args:
      out: folder of the run folders.
      progress: shows how far it is.
      steps: a shorter or longer schedule than the config's, all drops moved with it.
      rows: which nets.
    """
    for row in rows:
        config = get_config(row.name)
        if steps is not None:
            config.steps = steps
        fit(config, out / row.name, progress)


def runs(out: Path, rows: Sequence[Row] = ROWS) -> list[Run]:
    """Returns the rows' runs; those that do not exist count as unfinished."""
    return [load_run(row.label, row.group, out / row.name) for row in rows]


def draw(out: Path, command: str) -> dict[str, Path]:
    """Writes table, curves and page of the runs under `out` into it; the page shows the `command`."""
    return write_report(TITLE, INTRO, runs(out), out, {"command": command})
