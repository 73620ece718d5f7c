"""The style of all figures: colours, axes, and files that are the same bytes each time."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

#: Okabe and Ito's colours, which the colour-blind can tell apart, in an order that keeps neighbours distant; then
#: others for a figure of many nets.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3C8D", "#6B4E16", "#7A7A7A")

INK, MUTED, GRID, AXIS = "#1a1a1a", "#5a5a5a", "#e4e4e4", "#9a9a9a"


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Returns a figure, in inches, that lays out its panels."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        entitle(figure, title)
    return figure


def entitle(figure: Figure, title: str) -> None:
    """Sets the title of a figure."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, parse_math=False, wrap=True)


def empty_figure(title: str, text: str) -> Figure:
    """Returns a figure that says that there is nothing to show yet."""
    figure = new_figure(7.2, 2.4, title)
    panel = figure.subplots()
    panel.set_axis_off()
    say(panel, text)
    return figure


def say(panel: Axes, text: str) -> None:
    """Writes into the middle of a panel that there is nothing to show."""
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", color=MUTED)


def quiet_colorbar(bar: Colorbar) -> None:
    """Takes ticks and outline from a colour bar."""
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    bar.outline.set_visible(False)


def quiet(panel: Axes, title: str = "", grid: bool = True) -> None:
    """Gives a panel two axes without ticks, a pale grid, and a bold title on the left."""
    panel.tick_params(which="both", length=0, labelsize=9, labelcolor=MUTED)
    panel.set_axisbelow(True)
    if grid:
        panel.grid(color=GRID, linewidth=0.7)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(AXIS)
    panel.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK, parse_math=False)


def save(figure: Figure, path_png: Path, path_svg: Path | None = None) -> None:
    """Writes a figure as PNG (200 dpi) and, if a path is given, as SVG. The same figure gives the same bytes."""
    figure.savefig(path_png, dpi=200, metadata={"Software": None})
    if path_svg is not None:
        # By default an SVG has the date and random ids; only rcParams can set their salt.
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with matplotlib.rc_context({"svg.hashsalt": "resnet_jax"}):
            figure.savefig(path_svg, metadata=nothing)
