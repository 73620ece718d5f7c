"""Draws the JSON files that analyses left in runs' folders."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from resnet_jax.analysis import gradients, lesion, responses, surface
from resnet_jax.analysis.run_files import read_json
from resnet_jax.errors import UserError, unknown_name
from resnet_jax.report.analysis import draw_cost, draw_gradients, draw_lesion, draw_responses, draw_surface
from resnet_jax.report.analysis.nets import Net, load_nets
from resnet_jax.report.style import save

#: By the analysis's name: the file in a run's folder, and how several of them are drawn.
FIGURES: dict[str, tuple[str, Callable[[Sequence[Net]], Figure]]] = {
    "responses": (responses.FILE, draw_responses.draw),
    "gradients": (gradients.FILE, draw_gradients.draw),
    "surface": (surface.FILE, draw_surface.draw),
    "lesion": (lesion.FILE, draw_lesion.draw),
}


def plot_analysis(name: str, workdirs: Sequence[str | Path], out_dir: str | Path) -> tuple[Path, Path]:
    """Draws what an analysis found in runs: NAME.png and NAME.svg in `out_dir`, which is made if there is none.

    Args:
      name: a key of `FIGURES`.
      workdirs: the runs' folders, in the figure's order; the analysis must have been run on each.
      out_dir: where the pictures go.

    Raises:
      UserError: for an unknown name, a run that was not analysed, or a folder that cannot be written to.
    """
    if name not in FIGURES:
        raise unknown_name("analysis", name, FIGURES)
    file, draw = FIGURES[name]
    nets = load_nets(workdirs, file)
    try:
        figure = draw(nets)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        where = " or ".join(str(Path(workdir) / file) for workdir in workdirs)
        raise UserError(f"cannot draw: {where} is not what this version writes ({type(error).__name__})") from error
    return _write(figure, name, out_dir)


def is_measured(folder: Path, analysis: str) -> bool:
    """Returns whether an analysis of the run in `folder` has been made, and is complete.

    Raises:
      UserError: if its file cannot be read.
    """
    path = folder / FIGURES[analysis][0]
    if not path.exists():
        return False
    found = read_json(path)  # a surface grows row by row
    return analysis != "surface" or len(found.get("loss", ())) == len(found.get("y", (None,)))


def plot_cost(out_dir: str | Path) -> tuple[Path, Path]:
    """Draws parameters and multiply-adds against depth: cost.png and cost.svg in `out_dir`.

    Raises:
      UserError: if the folder cannot be written to.
    """
    return _write(draw_cost.draw(), "cost", out_dir)


def _write(figure: Figure, name: str, out_dir: str | Path) -> tuple[Path, Path]:
    out = Path(out_dir).expanduser()
    png, svg = out / f"{name}.png", out / f"{name}.svg"
    try:
        out.mkdir(parents=True, exist_ok=True)
        save(figure, png, svg)
    except OSError as error:
        raise UserError(f"cannot write {png}: {error.strerror or error}") from error
    return png, svg
