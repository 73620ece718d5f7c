"""Draws what depth costs: parameters and multiply-adds of the named nets (He et al. 2015, tables 1 and 6)."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_jax.models.summary import Summary, variant_summary
from resnet_jax.report.style import COLOURS, new_figure, quiet

#: Families whose depth grows: the curves of the figure. 1001 and 1202 layers take a minute to trace and are left out.
FAMILIES = {
    "ResNet, ImageNet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"),
    "VGG, ImageNet": ("vgg16", "vgg19"),
    "ResNet, CIFAR": ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110"),
}


def costs(names: Sequence[str]) -> list[Summary]:
    """Summaries of named nets at the image size that each was published for.

    Raises:
      UserError: for an unknown name.
    """
    return [variant_summary(name) for name in names]


def draw(families: dict[str, Sequence[str]] | None = None) -> Figure:
    """Parameters and multiply-adds against the depth, a line for each family.

    Args:
      families: names of nets by the family's; `FAMILIES` by default.
    """
    figure = new_figure(9, 3.8, "What depth costs")
    panels = figure.subplots(1, 2)
    for colour, (family, names) in zip(COLOURS, (families or FAMILIES).items(), strict=False):
        found = costs(names)
        depths = [net.depth for net in found]
        for panel, values in zip(panels, ([n.params for n in found], [n.flops for n in found]), strict=True):
            panel.plot(depths, values, color=colour, linewidth=1.6, marker="o", markersize=4, label=family)
    for panel, name in zip(panels, ("parameters", "multiply-adds for one image"), strict=True):
        quiet(panel, name)
        panel.set_yscale("log")
        panel.set_xlabel("depth (weighted layers)")
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend(frameon=False, fontsize=9)
    return figure
