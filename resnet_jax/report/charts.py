"""Charts of curves for the page, which chart.js draws."""

from collections.abc import Sequence
from typing import Any

from resnet_jax.report.series import TRAINING, Curve, Series, axis_limits, colour_indices, last_step, make_panels

#: Points of a line: a screen shows no more, and pages of hundreds of runs stay small.
POINTS = 400


def make_chart(
    series: Sequence[Series], groups: Sequence[str], form: str, caption: str, evaluated: str = "test"
) -> dict[str, Any]:
    """Returns a chart as a JSON object.

    Args:
      series, groups, form, evaluated: see `series.make_panels`.
      caption: the sentence above it.

    Returns:
      caption; limits: where the y axis may end, in percent; end: the last iteration; panels: title and lines, each with
      label, colour (an index), kind ("train" or what was tested on), style and points.
    """
    colours = dict(zip([id(one) for one in series], colour_indices(series), strict=True))

    def line(one: Series, kind: str) -> dict[str, Any]:
        curve: Curve = getattr(one, kind)
        return {
            "label": one.label,
            "colour": colours[id(one)],
            "kind": "train" if kind == "train" else evaluated,
            "style": TRAINING[form] if kind == "train" else "bold",
            **curve.thinned(POINTS).to_json(),
        }

    panels = make_panels(series, groups, form, evaluated)
    return {
        "caption": caption,
        "limits": list(axis_limits(series)),
        "end": last_step(series),
        "panels": [
            {"title": panel.heading, "lines": [line(*one) for one in panel.lines]} for panel in panels if panel.lines
        ],
    }
