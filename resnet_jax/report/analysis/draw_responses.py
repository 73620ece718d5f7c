"""Layer responses in the form of He et al. 2015, figure 7."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_jax.report.analysis.nets import Net
from resnet_jax.report.responses import draw_responses


def draw(nets: Sequence[Net]) -> Figure:
    """Standard deviations of the layers' responses: above in layer order, below ranked; plain nets dashed.

    Args:
      nets: each with the list of `analysis.responses.layer_responses`.
    """
    found = {net.label: [entry["std"] for entry in net.found] for net in nets}
    return draw_responses(found, "Standard deviation of layer responses")
