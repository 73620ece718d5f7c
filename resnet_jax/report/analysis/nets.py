"""The nets of a figure: their labels, how their lines look, and what an analysis found in them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_jax.analysis.run_files import evaluated_on, is_plain, net_name, read_json
from resnet_jax.report.style import COLOURS
from resnet_jax.training.run_record import RunRecord


@dataclasses.dataclass(frozen=True)
class Net:
    """A net of a figure.

    Attributes:
      label: "plain-56"; with the folder's name where two would be called alike.
      plain: whether it has no shortcuts: it is drawn dashed, as in figure 7 of the 2015 paper.
      colour: of its lines.
      found: the JSON that the analysis wrote.
      evaluated_on: see `analysis.run_files.evaluated_on`.
    """

    label: str
    plain: bool
    colour: str
    found: Any
    evaluated_on: str = "test"

    @property
    def line(self) -> Mapping[str, Any]:
        """Colour, dashes and label of its lines, for `Axes.plot`."""
        return {"color": self.colour, "linestyle": (0, (4, 1.5)) if self.plain else "-", "label": self.label}


def load_nets(workdirs: Sequence[str | Path], file: str) -> list[Net]:
    """Returns the nets of runs' folders, with what `file` in them holds.

    Raises:
      UserError: for a folder that holds no run, or not that file.
    """
    paths = [Path(workdir).expanduser() for workdir in workdirs]
    configs = [RunRecord(path).config() for path in paths]
    names = [net_name(config) for config in configs]
    return [
        Net(
            label=name if names.count(name) == 1 else f"{name} ({path.name})",
            plain=is_plain(config),
            colour=COLOURS[i % len(COLOURS)],
            found=read_json(path / file),
            evaluated_on=evaluated_on(config),
        )
        for i, (path, config, name) in enumerate(zip(paths, configs, names, strict=True))
    ]
