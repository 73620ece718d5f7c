"""The whole report of some runs, written into one folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_jax.errors import UserError
from resnet_jax.report.curves import plot_curves
from resnet_jax.report.page import write_page
from resnet_jax.report.run_data import Run
from resnet_jax.report.table import to_markdown


def render(
    title: str, intro: str, runs: Sequence[Run], out_dir: str | Path, facts: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """Writes table.md, curves.png, curves.svg and index.html. The same runs give the same bytes.

    Args:
      title, intro, facts: of the page, see `write_page`.
      runs: the table's rows in order; groups are the figure's panels.
      out_dir: made if there is none.

    Returns:
      The four paths by file name.

    Raises:
      UserError: if `out_dir` cannot be written to.
    """
    out = Path(out_dir).expanduser()
    paths = {name: out / name for name in ("table.md", "curves.png", "curves.svg", "index.html")}
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths["table.md"].write_text(to_markdown(runs), encoding="utf-8")
        plot_curves(runs, paths["curves.png"], paths["curves.svg"])
        write_page(paths["index.html"], title, intro, runs, paths["curves.svg"], facts)
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}") from error
    return paths
