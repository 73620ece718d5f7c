"""A table of texts, and how it is written: as Markdown, LaTeX, or for the terminal."""

import dataclasses
import re
from collections.abc import Sequence

import rich.box
import rich.table
from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from resnet_jax.errors import printable

#: Characters to which a cell may grow in the terminal before it is wrapped between words.
WRAP = 28


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text, the key of the runs that it comes from (empty if it comes from none), and its style in the terminal."""

    text: str
    runs: str = ""
    style: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line: its cells, the part of the table that it stands in, and whether its numbers are another work's."""

    cells: tuple[Cell, ...]
    group: str = ""
    quoted: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: headings, lines with as many cells, and sentences that stand under it."""

    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def parts(self) -> list[tuple[str, list[Line]]]:
        """Returns the lines by group, in the order in which the groups first appear."""
        groups = dict.fromkeys(line.group for line in self.lines)
        return [(group, [line for line in self.lines if line.group == group]) for group in groups]

    def texts(self) -> list[list[str]]:
        """Returns the texts of the cells, line by line."""
        return [[cell.text for cell in line.cells] for line in self.lines]


def make_grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Grid:
    """Returns a grid of plain texts."""
    return Grid(tuple(headings), tuple(Line(tuple(map(Cell, row))) for row in rows))


def to_markdown(grid: Grid, title: str = "", padded: bool = True) -> str:
    """Returns the table, below its title if there is one; padded, it reads as plain text too."""
    body: list[list[str]] = []
    for group, lines in grid.parts():
        if group:
            body.append([f"**{_escape_markdown(group)}**", *[""] * (len(grid.headings) - 1)])
        body += [[_escape_markdown(cell.text) for cell in line.cells] for line in lines]
    texts = [[_escape_markdown(heading) for heading in grid.headings], *body]
    widths = [max(3, *(len(line[i]) for line in texts)) if padded else 3 for i in range(len(grid.headings))]
    texts.insert(1, ["-" * widths[0], *("-" * (width - 1 if padded else width) + ":" for width in widths[1:])])
    if padded:
        texts = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in texts]
    table = "".join(f"| {' | '.join(line)} |\n" for line in texts)
    return (f"## {title}\n\n" if title else "") + table + "".join(f"\n{printable(note)}\n" for note in grid.notes)


def to_latex(grid: Grid, title: str) -> str:
    """Returns a `table` of booktabs; the preamble needs that package and, with TeX before 2018, UTF-8 input."""
    columns = "l" + "r" * (len(grid.headings) - 1)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(title)}. {_escape_latex(' '.join(grid.notes))}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(grid.headings),
        r"\midrule",
    ]
    for i, (group, found) in enumerate(grid.parts()):
        if group:
            lines += [r"\midrule"] * bool(i)
            lines.append(rf"\multicolumn{{{len(grid.headings)}}}{{l}}{{\textit{{{_escape_latex(group)}}}}} \\")
        lines += [_latex_row([cell.text for cell in line.cells]) for line in found]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def to_rich(grid: Grid, title: str = "", width: int = 80, box: rich.box.Box | None = rich.box.HEAVY_HEAD) -> Group:
    """Returns the table for a terminal of that width, in which words and numbers are never cut.

    Columns that do not fit are shown below the others, beside the first column again.
    """
    columns = [
        [heading, *(printable(line.cells[i].text) for line in grid.lines)] for i, heading in enumerate(grid.headings)
    ]
    columns[0] += [printable(group) for group, _ in grid.parts()]
    widths = []
    for texts in columns:
        longest_word = max(cell_len(word) for text in texts for word in [*text.split(), ""])
        widths.append(max(longest_word, min(max(map(cell_len, texts[1:]), default=0), WRAP)))
    edges, between = (0, 2) if box is None else (4, 3)
    blocks, used = [[0]], widths[0] + edges
    for i, needed in enumerate(widths[1:], start=1):
        if used + needed + between > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0] + edges
        blocks[-1].append(i)
        used += needed + between

    tables = []
    for block in blocks:
        table = rich.table.Table(box=box, pad_edge=box is not None)
        for i in block:
            # A word is folded only where a column alone is wider than the terminal.
            table.add_column(Text(grid.headings[i]), justify="right" if i else "left", width=widths[i] or 1,
                             overflow="fold")  # fmt: skip
        for group, lines in grid.parts():
            if group:
                table.add_section()
                table.add_row(Text(printable(group), "italic"))
            for line in lines:
                dim = "dim" if line.quoted else ""
                table.add_row(*(Text(printable(line.cells[i].text), line.cells[i].style or dim) for i in block))
        tables.append(table)
    tables[0].title = title or None
    return Group(*tables, *(Text(printable(note), "dim italic") for note in grid.notes))


def _escape_markdown(text: str) -> str:
    """Returns a text that Markdown shows as it is, and not as HTML, code or a link."""
    return re.sub(r"[\\|<`]|(?<=\])\(", r"\\\g<0>", printable(text))


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(_escape_latex(text) for text in texts) + r" \\"


_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in printable(text))
