"""Charts of the page, against the series that they show."""

import json

import pytest

from resnet_jax.report.charts import POINTS, make_chart


def test_charts_hold_the_same_lines(series):
    chart = make_chart(series, ["plain", "residual"], "curves", "caption", "held-out")
    assert json.loads(json.dumps(chart)) == chart
    assert [panel["title"] for panel in chart["panels"]] == ["plain", "residual"]
    train, test = chart["panels"][0]["lines"][:2]
    assert (train["kind"], train["style"], test["kind"], test["style"]) == ("train", "dashed", "held-out", "bold")
    assert test["mean"][-1] == 8.5 and test["std"][-1] == pytest.approx(0.707) and len(test["steps"]) <= POINTS
    assert [p["title"] for p in make_chart(series, [""], "train_test", "")["panels"]] == [
        "training error",
        "test error",
    ]
