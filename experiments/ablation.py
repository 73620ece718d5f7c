"""The degradation ablation (He et al. 2015, section 4.2 and figure 6) on real images that need no download.

Made deeper, a plain net trains worse; with identity shortcuts (option A, no extra parameters) it does not.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from configs.digits import get_config
from experiments.experiment import Row
from resnet_jax.errors import counted, writing
from resnet_jax.report.curves import draw_curves
from resnet_jax.report.grid import to_markdown
from resnet_jax.report.page import Section, write_page
from resnet_jax.report.run_data import Run, load_run
from resnet_jax.report.series import make_series
from resnet_jax.report.style import save
from resnet_jax.report.table import runs_grid
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

NOTES = (
    "Training error: of the batches of the last epoch as they were trained on. Test error: after the last step, single "
    "view. Seconds: from start to end, compilation and evaluations included.",
)


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


def curves(found: Sequence[Run], title: str = "") -> Figure:
    """Draws training and test error over iterations; a plain net and its residual twin share colour and name."""
    series = [make_series(f"{run.result.depth}-layer", run.group, [run]) for run in found if run.result]
    groups = list(dict.fromkeys(run.group for run in found))
    return draw_curves([one for one in series if one is not None], groups, "curves", title)


def draw(found: Sequence[Run], out: Path, command: str) -> dict[str, Path]:
    """Writes table.md, curves.png, curves.svg and index.html of some runs. The same runs give the same bytes.

    Args:
      found: the table's rows in order; their groups are the figure's panels.
      out: folder, made if there is none.
      command: what was typed to get all this; the page shows it.

    Raises:
      UserError: if `out` cannot be written to.
    """
    paths = {name: out / name for name in ("table.md", "curves.png", "curves.svg", "index.html")}
    grid = runs_grid(found, NOTES)
    done = sum(run.result is not None for run in found)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        paths["table.md"].write_text(to_markdown(runs_grid(found)), encoding="utf-8")
        save(curves(found), paths["curves.png"], paths["curves.svg"])
        by_label = {run.label: (run,) for run in found}
        section = Section(
            "digits", "errors over iterations and at the end", f"{done} of {counted(len(found), 'run')}", grid,
            by_label, pictures=[paths["curves.svg"]],
        )  # fmt: skip
        write_page(paths["index.html"], TITLE, [*INTRO.split("\n\n"), f"Written by: {command}"], [section])
    return paths
