"""Draws the JSON files that analyses left in runs' folders."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from resnet_jax.analysis import gradients, lesion, responses, surface
from resnet_jax.analysis.run_files import read_json, read_settings
from resnet_jax.errors import UserError, unknown_name, writing
from resnet_jax.report.analysis import draw_cost, draw_gradients, draw_lesion, draw_responses, draw_surface
from resnet_jax.report.analysis.nets import Net, load_nets
from resnet_jax.report.style import empty_figure, entitle, save
from resnet_jax.training.run_record import RunRecord

#: By the analysis's name: the file in a run's folder, and how several of them are drawn.
FIGURES: dict[str, tuple[str, Callable[[Sequence[Net]], Figure]]] = {
    "responses": (responses.FILE, draw_responses.draw),
    "gradients": (gradients.FILE, draw_gradients.draw),
    "surface": (surface.FILE, draw_surface.draw),
    "lesion": (lesion.FILE, draw_lesion.draw),
}


def draw_analysis(name: str, runs: Sequence[Sequence[str | Path]], title: str = "") -> Figure:
    """Draws what an analysis found.

    Args:
      name: a key of `FIGURES`.
      runs: for each net the folders of its runs, which differ in their seed. Layer responses are averaged over them;
        other figures show the first.
      title: over the panels, instead of the analysis's own. Settings in which the nets' analyses differ follow it.

    Raises:
      UserError: for an unknown name, a run that was not analysed, or a damaged file.
    """
    if name not in FIGURES:
        raise unknown_name("analysis", name, FIGURES)
    if not runs:
        return empty_figure(title, "no measured run")
    file, draw = FIGURES[name]
    folders = [[Path(seed).expanduser() for seed in seeds] for seeds in runs]
    nets = load_nets([seeds[0] for seeds in folders], file)
    try:
        if name == "responses":
            means = [draw_responses.mean_responses(seeds) for seeds in folders]
            nets = [dataclasses.replace(net, found=mean) for net, mean in zip(nets, means, strict=True)]
        figure = draw(nets)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        where = " or ".join(str(seed / file) for seeds in folders for seed in seeds)
        raise UserError(f"cannot draw: {where} is not what this version writes ({type(error).__name__})") from error
    differing = _differing_settings([net.label for net in nets], [seeds[0] / file for seeds in folders])
    if title or differing:
        entitle(figure, (title or figure.get_suptitle()) + differing)
    return figure


def _differing_settings(labels: Sequence[str], paths: Sequence[Path]) -> str:
    """Returns in which settings the analyses of some nets differ, to stand behind a title; empty if they do not.

    The step does not count: runs differ in their length.
    """
    found = [read_settings(path) for path in paths]
    values = {name: {str(one[name]) for one in found if name in one} for one in found for name in one if name != "step"}
    names = [name for name, known in values.items() if len(known) > 1]
    by_setting: dict[str, list[str]] = {}
    for label, settings in zip(labels, found, strict=True):
        text = ", ".join(f"{name}={settings[name]}" for name in names if name in settings)
        by_setting.setdefault(text, []).append(label)
    return "".join(f"\n{', '.join(of)}: {text}" for text, of in by_setting.items() if text)


def plot_analysis(name: str, workdirs: Sequence[str | Path], out_dir: str | Path) -> tuple[Path, Path]:
    """Draws what an analysis found in runs: NAME.png and NAME.svg in `out_dir`, which is made if there is none.

    Args:
      name: a key of `FIGURES`, or "cost" for parameters and multiply-adds against depth, of no runs.
      workdirs: the runs' folders, in the figure's order; the analysis must have been run on each.
      out_dir: where the pictures go.

    Raises:
      UserError: see `draw_analysis`, and if the folder cannot be written to.
    """
    figure = draw_cost.draw() if name == "cost" else draw_analysis(name, [[workdir] for workdir in workdirs])
    out = Path(out_dir).expanduser()
    png, svg = out / f"{name}.png", out / f"{name}.svg"
    with writing(png):
        out.mkdir(parents=True, exist_ok=True)
        save(figure, png, svg)
    return png, svg


def is_measured(folder: Path, analysis: str) -> bool:
    """Returns whether an analysis of the run in `folder` has been made, and is complete.

    One of other weights than the run ended with is none, nor are responses to other images than the test set's, which
    the figures show. Files that do not say so are taken as they are.

    Raises:
      UserError: if its file, or the run's result, cannot be read.
    """
    path = folder / FIGURES[analysis][0]
    if not path.exists():
        return False
    settings = read_settings(path)
    result = RunRecord(folder).result()
    last = None if result is None else result.kept_step or result.steps
    if settings.get("step", last) != last or settings.get("split", "test") != "test":
        return False
    found = read_json(path)  # a surface grows row by row
    return analysis != "surface" or len(found.get("loss", ())) == len(found.get("y", (None,)))
