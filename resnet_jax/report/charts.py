"""Charts of curves for the page, which chart.js draws."""

from collections.abc import Sequence
from typing import Any

from resnet_jax.report.panels import limits_for
from resnet_jax.report.series import Curve, Series, colour_indices

#: Points of a line: a screen shows no more, and pages of hundreds of runs stay small.
POINTS = 400


def make_chart(
    series: Sequence[Series], groups: Sequence[str], form: str, caption: str, evaluated: str = "test"
) -> dict[str, Any]:
    """Returns a chart as a JSON object.

    Args:
      series, groups, form, evaluated: as in `figures.draw_series`.
      caption: the sentence above it.

    Returns:
      caption; limits: where the y axis may end, in percent; end: the last iteration; panels: title and lines, each with
      label, colour (an index), kind ("train" or what was tested on), style and points.
    """
    colours = dict(zip([id(one) for one in series], colour_indices(series), strict=True))
    curves = [curve for one in series for curve in (one.train, one.test) if curve.steps.size]
    training = {"curves": "dashed", "thin_curves": "thin", "train_test": "bold"}[form]

    def line(one: Series, kind: str) -> dict[str, Any]:
        curve: Curve = getattr(one, kind)
        style = training if kind == "train" else "bold"
        points = curve.thinned(POINTS).to_json()
        return {
            "label": one.label,
            "colour": colours[id(one)],
            "kind": "train" if kind == "train" else evaluated,
            "style": style,
            **points,
        }

    if form == "train_test":
        panels = [
            {"title": f"{title} error", "lines": [line(one, kind) for one in series]}
            for title, kind in (("training", "train"), (evaluated, "test"))
        ]
    else:
        panels = []
        for group in groups:
            members = [one for one in series if one.group == group]
            panels.append({"title": group, "lines": [line(one, kind) for one in members for kind in ("train", "test")]})
    return {
        "caption": caption,
        "limits": list(limits_for([float(curve.mean[-1]) for curve in curves])),
        "end": max((int(curve.steps[-1]) for curve in curves), default=1),
        "panels": [panel for panel in panels if panel["lines"]],
    }
