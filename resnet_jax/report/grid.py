"""A table of texts, and how it is written: Markdown, LaTeX, the terminal."""

import dataclasses
from collections.abc import Sequence

import rich.table
from rich.text import Text


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text, and the key of the runs that it comes from, empty if it comes from none."""

    text: str
    runs: str = ""


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
        """The lines by group, in the order in which the groups first appear."""
        groups = dict.fromkeys(line.group for line in self.lines)
        return [(group, [line for line in self.lines if line.group == group]) for group in groups]


def to_markdown(grid: Grid, title: str) -> str:
    """The table under its title, padded so that it reads as plain text too."""
    body: list[list[str]] = []
    for group, lines in grid.parts():
        if group:
            body.append([f"**{_escape_markdown(group)}**", *[""] * (len(grid.headings) - 1)])
        body += [[_escape_markdown(cell.text) for cell in line.cells] for line in lines]
    texts = [[_escape_markdown(heading) for heading in grid.headings], *body]
    widths = [max(3, *(len(line[i]) for line in texts)) for i in range(len(grid.headings))]
    texts.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in texts]
    table = "".join(f"| {' | '.join(line)} |\n" for line in padded)
    return f"## {title}\n\n{table}" + "".join(f"\n{note}\n" for note in grid.notes)


def to_latex(grid: Grid, title: str) -> str:
    """A `table` of booktabs; the preamble needs that package and, with a TeX older than 2018, UTF-8 input."""
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


def to_rich(grid: Grid, title: str) -> rich.table.Table:
    """The table for a terminal."""
    table = rich.table.Table(title=title, caption="\n".join(grid.notes) or None, caption_justify="left")
    for i, heading in enumerate(grid.headings):
        table.add_column(heading, justify="right" if i else "left")
    for group, lines in grid.parts():
        if group:
            table.add_section()
            table.add_row(Text(group, "italic"))
        for line in lines:
            table.add_row(*(Text(cell.text, "dim" if line.quoted else "") for cell in line.cells))
    return table


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|")


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
    return "".join(_LATEX.get(character, character) for character in text)
