"""Draws precision over recall of the classes of a test of detection."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from resnet_jax.errors import counted, writing
from resnet_jax.evaluation.detection import EvaluatedDetection
from resnet_jax.evaluation.evaluation_files import EVALUATIONS
from resnet_jax.report.style import AXIS, COLOURS, new_figure, quiet, save
from resnet_jax.tasks.average_precision import area_under, falling

#: Classes that are told apart by colours; of more, half that many of the best and of the worst are.
TOLD_APART = 8


def draw_detection(tested: EvaluatedDetection, workdir: str | Path) -> Path:
    """Draws evaluations/NAME.png and NAME.svg in a run's folder and returns the path of the first.

    Raises:
      UserError: if the folder cannot be written to.
    """
    path = Path(workdir).expanduser() / EVALUATIONS / f"{tested.name}.png"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        save(curves_figure(tested), path, path.with_suffix(".svg"))
    return path


def curves_figure(tested: EvaluatedDetection) -> Figure:
    """Draws a line for each class that has objects: the best precision that there is at a recall or beyond it."""
    result = tested.result
    shown = [(100 * area_under(curve), name, curve) for name, curve in zip(tested.classes, tested.curves, strict=True)
             if curve.objects]  # fmt: skip
    shown.sort(key=lambda one: -one[0])
    half = TOLD_APART // 2
    named = range(len(shown)) if len(shown) <= TOLD_APART else (*range(half), *range(len(shown) - half, len(shown)))
    names = ", ".join(dict.fromkeys(result.models))
    count = f" ({len(result.models)} runs)" if len(result.models) > 1 else ""
    title = (f"{names}{count}: {result.protocol.replace('_', ' ')}, "
             f"{counted(result.examples, result.evaluated_on.replace('_', '-') + ' image')}")  # fmt: skip
    figure = new_figure(6.4, 4.6, title)
    panel = figure.subplots()
    for place, (ap, name, curve) in enumerate(shown):
        told = place in named
        label = f"{ap:.1f} % {name}, {counted(curve.objects, 'object')}" if told else None
        colour = COLOURS[list(named).index(place)] if told else AXIS
        # From a recall of 0 on; a class of which nothing is found has a point there.
        best = np.concatenate([falling(curve.precision), [0.0]])
        recall = np.concatenate([[0.0], curve.recall, curve.recall[-1:]])
        panel.step(
            recall[: len(best) + 1], np.concatenate([best[:1], best])[: len(recall)], where="pre", color=colour,
            linewidth=1.6 if told else 0.6, zorder=2 if told else 1, label=label,
        )  # fmt: skip
    panel.set_xlim(0, 1.005)
    panel.set_ylim(0, 1.02)
    panel.set_xlabel("recall")
    panel.set_ylabel("precision")
    if shown:
        legend = figure.legend(frameon=False, fontsize=9, loc="outside lower left", ncols=2)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may have dollar signs
    mean = np.mean([ap for ap, *_ in shown]) if shown else 0
    quiet(panel, f"AP50, the mean area under the curves of classes: {mean:.2f} %")
    return figure
