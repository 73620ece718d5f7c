"""Tables as Markdown, LaTeX and for the terminal."""

import io

from rich.console import Console

from resnet_jax.report.grid import Cell, Grid, Line, make_grid, to_latex, to_markdown, to_rich

GRID = Grid(
    ("net", "error (%)"),
    (
        Line((Cell("plain|20"), Cell("9.1 ± 0.1", "plain20")), "plain"),
        Line((Cell("ResNet_20 & [more]"), Cell("−8.75")), "residual"),
        Line((Cell("NIN"), Cell("")), "plain", quoted=True),
    ),
    ("A 5 % note.",),
)


def test_markdown_keeps_groups_together_and_escapes():
    lines = to_markdown(GRID, "Title").splitlines()
    assert lines[0] == "## Title" and lines[-1] == "A 5 % note."
    firsts = [line.split("| ")[1].strip() for line in lines if line.startswith("|")]
    assert firsts[0] == "net" and firsts[2:] == ["**plain**", "plain\\|20", "NIN", "**residual**", "ResNet_20 & [more]"]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1


def test_latex_escapes():
    text = to_latex(GRID, "50 % & more_")
    assert r"\caption{50 \% \& more\_. A 5 \% note.}" in text
    assert r"ResNet\_20 \& [more] & $-$8.75 \\" in text
    assert r"9.1 $\pm$ 0.1" in text and r"\multicolumn{2}{l}{\textit{plain}} \\" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_terminal_shows_brackets_as_they_are():
    out = io.StringIO()
    Console(file=out, width=100).print(to_rich(GRID, "Title"))
    assert "[more]" in out.getvalue() and "A 5 % note." in out.getvalue()


def test_words_and_numbers_are_whole_at_80_columns():
    """What does not fit stands below, beside the names again."""
    headings = ["net", *(f"quantity {i}, paper" for i in range(12))]
    rows = [[f"preact ResNet-{n}", *(f"{n * 1000 + i:,}.{i:02}" for i in range(12))] for n in (110, 1001)]
    out = io.StringIO()
    Console(file=out, width=80).print(to_rich(make_grid(headings, rows), "Title", 80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and out.getvalue().count("preact ResNet-1001") > 1
    words = out.getvalue().split()
    assert all(cell in words for row in rows for cell in row[1:]) and "\N{HORIZONTAL ELLIPSIS}" not in out.getvalue()


def test_a_table_of_texts_alone():
    grid = make_grid(["x", "y"], [["1", "a|b"]])
    assert to_markdown(grid, padded=False) == "| x | y |\n| --- | ---: |\n| 1 | a\\|b |\n"


def test_names_from_outside_are_shown_and_do_nothing():
    """Class names and run names may hold what terminals and Markdown obey."""
    names = ["\x1b[31mred\x1b[0m", "a\rb", "a\nb", "\u202eevil", "<img src=x>", "[click](http://x)", "`code`", "\x9b2J"]
    grid = make_grid(["class", "error"], [[name, "1"] for name in names])
    out = io.StringIO()
    Console(file=out, width=100).print(to_rich(grid))
    markdown, latex = to_markdown(grid), to_latex(grid, "t")
    for text in (out.getvalue(), markdown, latex):
        assert not set(text) & set("\x1b\r\u202e\x9b") and "red" in text and "evil" in text
    assert len(markdown.splitlines()) == 2 + len(names)
    assert "\\<img" in markdown and "[click]\\(" in markdown and "\\`code\\`" in markdown
