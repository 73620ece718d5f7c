"""A paper's numbers beside ours, and the table and the CSV file made from them."""

import csv
import dataclasses
import io
from collections.abc import Sequence

from resnet_jax.report.grid import Cell, Grid, Line
from resnet_jax.report.run_statistics import WITHIN, Difference, Spread

MINUS, PLUS_MINUS, DASH = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}", "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class Computed:
    """A number of a net, or of the way it is shown images, that needs no run.

    Attributes:
      heading: what it is.
      paper: the paper's.
      ours: of the net here; None where there is none.
      digits: after the decimal point.
    """

    heading: str
    paper: float | None
    ours: float | None
    digits: int


@dataclasses.dataclass(frozen=True)
class Measure:
    """An error or an average precision in percent, the paper's and ours.

    Attributes:
      heading: what it is.
      paper: the paper's number.
      paper_mean, paper_std: those of the paper's runs, where it prints them.
      above: the paper only says that it is above this.
      statistic: what of ours is compared with the paper's: "best", "median" or "mean".
      ours: spread of our runs; None without runs.
    """

    heading: str
    paper: float | None = None
    paper_mean: float | None = None
    paper_std: float | None = None
    above: float | None = None
    statistic: str = "mean"
    ours: Spread | None = None

    @property
    def compared(self) -> float | None:
        """Our number that is compared with the paper's."""
        return None if self.ours is None else getattr(self.ours, self.statistic)

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.compared is None or self.paper is None else self.compared - self.paper

    @property
    def within(self) -> bool | None:
        """Whether the paper's number lies within our spread or, if it only says "above", whether ours is above too.

        A mean that the paper prints is compared with ours: its best of five is lower than most means of five runs.
        """
        if self.ours is None:
            return None
        if self.above is not None:
            return self.ours.median > self.above
        number = self.paper if self.paper_mean is None else self.paper_mean
        return None if number is None else self.ours.holds(number)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of the paper's table with our runs of one length.

    Attributes:
      name, label, group, note, quoted: of the row.
      steps_scale: length of the runs, in the paper's.
      held_out: the numbers are of other images than the paper's, as a part of the training set.
      evaluated_on: what the numbers are of: "test", "validation" or "held_out".
      done, wanted: runs that are finished, and how many the paper made; wanted is 0 if there is nothing to run.
      unfinished: runs that have begun.
      computed, measures: numbers, the same headings in every entry of a table.
      against: label of the row that this one is compared with, empty if there is none.
      difference: of the means of our runs, this row's less that row's, in the measure `compared`.
      paper_difference: the same of the paper's numbers.
    """

    name: str
    label: str
    group: str = ""
    note: str = ""
    quoted: bool = False
    steps_scale: float = 1.0
    held_out: bool = False
    evaluated_on: str = "test"
    done: int = 0
    wanted: int = 0
    unfinished: int = 0
    computed: tuple[Computed, ...] = ()
    measures: tuple[Measure, ...] = ()
    against: str = ""
    difference: Difference | None = None
    paper_difference: float | None = None

    @property
    def key(self) -> str:
        """The key of its runs, unique in a table."""
        return f"{self.name}-{self.steps_scale:g}" + ("-held-out" if self.held_out else "")

    @property
    def compared(self) -> Measure | None:
        """The measure by which pairs are compared: a figure's test error, a table's first."""
        return next((one for one in self.measures if not one.heading.startswith("training")), None)

    @property
    def full(self) -> bool:
        """Whether its numbers can be compared with the paper's: runs of full length, tested on the same images."""
        return self.steps_scale == 1 and not self.held_out

    @property
    def marked(self) -> str:
        """The label, with all in which these runs differ from the paper's."""
        marks = ["quoted"] * self.quoted + ([self.note] if self.note else [])
        if self.steps_scale != 1:
            marks.append(f"{100 * self.steps_scale:.3g} % of the paper's iterations")
        if self.held_out:
            marks.append(f"on {self.evaluated_on.replace('_', '-')} images, not the paper's")
        return self.label + (f" ({'; '.join(marks)})" if marks else "")


def to_grid(entries: Sequence[Entry], notes: Sequence[str] = ()) -> Grid:
    """Returns the table. A number of ours carries the key of its runs; cells of rows without runs are empty."""
    if not entries:
        return Grid(("net",), (), tuple(notes))
    first = entries[0]
    runs = any(entry.wanted for entry in entries)
    pairs = any(entry.against for entry in entries)
    both = [any(entry.computed[i].ours is not None for entry in entries) for i in range(len(first.computed))]
    statistics = [name for name in ("best", "median") if any(m.statistic == name for e in entries for m in e.measures)]
    papers = [
        any(m.paper is not None or m.above is not None for m in (e.measures[i] for e in entries))
        for i in range(len(first.measures))
    ]
    headings = ["net"]
    for fact, ours in zip(first.computed, both, strict=True):
        headings += [f"{fact.heading}, paper", "ours"] if ours else [fact.heading]
    headings += ["runs"] if runs else []
    for measure, paper in zip(first.measures, papers, strict=True):
        headings += [f"{measure.heading}, paper"] if paper else []
        headings += [f"our {name}" if paper else f"{measure.heading}, {name}" for name in statistics]
        headings += [f"our mean {PLUS_MINUS} std" if paper else f"{measure.heading}, mean {PLUS_MINUS} std"]
        headings += ["difference", "within"] if paper else []
    headings += ["against another row"] if pairs else []

    lines = []
    for entry in entries:
        cells = [Cell(entry.marked)]
        for fact, ours in zip(entry.computed, both, strict=True):
            cells += [Cell(_printed(fact.paper))] + [Cell(_number(fact.ours, fact.digits))] * ours
        key = entry.key if entry.done or entry.unfinished else ""
        cells += [Cell(_runs(entry), key)] if runs else []
        for measure, paper in zip(entry.measures, papers, strict=True):
            cells += [Cell(_paper(measure))] if paper else []
            cells += [_linked(getattr(measure.ours, name) if measure.ours else None, key) for name in statistics]
            cells += [Cell(_mean(measure.ours, entry.done), key)]
            cells += [Cell(_signed(measure.difference), key), Cell(_within(entry, measure), key)] if paper else []
        cells += [Cell(_pair(entry), key)] if pairs else []
        lines.append(Line(tuple(cells), entry.group, entry.quoted))
    return Grid(tuple(headings), tuple(lines), (*_explained(entries, any(papers), pairs), *notes))


def to_csv(entries: Sequence[Entry]) -> str:
    """Returns CSV with one line for each row, run length and number, unrounded; empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        "row label group quoted steps_scale evaluated_on runs wanted quantity paper paper_mean paper_std paper_above "
        "statistic ours best mean std median difference within against pair_difference pair_low pair_high "
        "paper_pair_difference values".split()
    )
    for entry in entries:
        head = [
            entry.name,
            entry.label,
            entry.group,
            entry.quoted,
            entry.steps_scale,
            entry.evaluated_on,
            entry.done,
            entry.wanted,
        ]
        for fact in entry.computed:
            writer.writerow([*head, fact.heading, fact.paper, *[""] * 3, "net", fact.ours, *[""] * 12])
        for m in entry.measures:
            pair = m is entry.compared
            s, d = m.ours, entry.difference if pair else None
            writer.writerow(
                [*head, m.heading, m.paper, m.paper_mean, m.paper_std, m.above, m.statistic, m.compared]
                + ([s.best, s.mean, s.std, s.median] if s else [""] * 4)
                + [m.difference, m.within if entry.full else "", entry.against if pair else ""]
                + ([d.mean, d.low, d.high] if d else [""] * 3)
                + [entry.paper_difference if pair else "", " ".join(map(str, s.values)) if s else ""]
            )
    return text.getvalue()


def _explained(entries: Sequence[Entry], papers: bool, pairs: bool) -> list[str]:
    """Returns sentences on what the headings mean."""
    notes = []
    if papers:
        notes.append(
            "Difference: ours (best, median or, for a single run of the paper's, mean) less the paper's. Within: "
            f"whether the paper's number, or the mean where it prints one, is within {WITHIN:g} standard deviations of "
            "our mean."
        )
    if pairs:
        notes.append(
            "Against another row: mean of our runs less that of the row named, with a 95 % bootstrap interval where "
            "both have two runs or more."
        )
    if any(not entry.full for entry in entries):
        notes.append("Rows with a share of the paper's iterations, or of other images, are no reproduction.")
    return notes


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _printed(value: float | None) -> str:
    """Returns the number with no more digits than the paper prints."""
    return "" if value is None else f"{value:,.6g}"


def _linked(value: float | None, key: str) -> Cell:
    return Cell(_number(value), key)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}".replace("-", MINUS)


def _paper(measure: Measure) -> str:
    if measure.paper is None:
        return "" if measure.above is None else f"over {measure.above:g}"
    if measure.paper_mean is None:
        return _number(measure.paper)
    return f"{measure.paper:.2f} ({measure.paper_mean:.2f} {PLUS_MINUS} {measure.paper_std:.2f})"


def _mean(ours: Spread | None, done: int) -> str:
    if ours is None:
        return ""
    # A finished run may not be tested yet, or not as the paper tests.
    part = f" ({ours.n} of {done} runs)" if ours.n < done else ""
    return f"{ours.mean:.2f}" + ("" if ours.std is None else f" {PLUS_MINUS} {ours.std:.2f}") + part


def _runs(entry: Entry) -> str:
    if not entry.wanted:
        return ""
    # More seeds than the paper's would read oddly as "5 of 1".
    done = f"{entry.done} of {entry.wanted}" if entry.done <= entry.wanted else f"{entry.done}, paper {entry.wanted}"
    return done + (f", {entry.unfinished} begun" if entry.unfinished else "")


def _within(entry: Entry, measure: Measure) -> str:
    if not entry.full or measure.ours is None or (measure.paper is None and measure.above is None):
        return ""
    return {True: "yes", False: "no", None: DASH}[measure.within]


def _pair(entry: Entry) -> str:
    if not entry.against or (entry.difference is None and entry.paper_difference is None):
        return ""
    ours = ""
    if entry.difference is not None:
        ours = _signed(entry.difference.mean)
        if entry.difference.low is not None:
            ours += f" [{_signed(entry.difference.low)}, {_signed(entry.difference.high)}]"
    paper = "" if entry.paper_difference is None else f"paper {_signed(entry.paper_difference)}"
    return f"{entry.against}: " + "; ".join(part for part in (ours, paper) if part)
