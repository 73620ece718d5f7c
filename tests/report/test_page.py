"""The whole report, and the page in it."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from resnet_jax.errors import UserError
from resnet_jax.report.page import write_report
from resnet_jax.report.table import runs_grid, to_markdown


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        self.text += data


def render_page(runs, folder, title="Title", intro="Text", **more):
    return Page(write_report(title, intro, runs, folder, **more)["index.html"].read_text())


def test_writes_all_files_and_says_where(four_runs, tmp_path):
    paths = write_report("Title", "Text", four_runs, tmp_path / "new" / "report")

    assert set(paths) == {"table.md", "curves.png", "curves.svg", "index.html"}
    assert all(path == tmp_path / "new" / "report" / name and path.stat().st_size for name, path in paths.items())
    assert paths["table.md"].read_text() == to_markdown(four_runs)


def test_the_page_opens_offline(four_runs, tmp_path):
    page = render_page(four_runs, tmp_path / "report")

    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not re.match(r"\s*(https?:)?//", value or ""), (tag, name, value)
        if name in ("src", "srcset"):
            assert value.startswith("data:image/svg+xml;base64,")
    assert "url(" not in page.text and "@import" not in page.text


def test_the_page_shows_every_cell_and_where_it_comes_from(four_runs, tmp_path):
    page = render_page(four_runs, tmp_path / "report", details={"command": "make ablation"})

    for cell in [cell for row in runs_grid(four_runs).texts() for cell in row]:
        assert cell in page.text
    for fact in (
        "hash20",
        "hash56",
        "0123abc",
        "cpu cores\N{NO-BREAK SPACE}2",
        "jax\N{NO-BREAK SPACE}0.12.0",
        "540",
        "64",
    ):
        assert fact in page.text
    assert "make ablation" in page.text
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert "../runs/plain-20/result.json" in links
    assert all((tmp_path / "report" / unquote(link)).is_file() for link in links)


def test_an_unfinished_run_is_listed_as_that(make_run, tmp_path):
    runs = [make_run("ResNet-20", "residual"), make_run("ResNet-56", "residual", 56, finished=False)]
    page = render_page(runs, tmp_path / "report")

    assert "(not finished)" in page.text
    assert not any("ResNet-56/result.json" in (value or "") for _, _, value in page.attributes)
    assert page.text.count("4.44") == 1


def test_what_comes_from_outside_is_escaped(make_run, tmp_path):
    bad = '"><script>alert(1)</script><img src=http://x/y onerror=z>'
    run = make_run(bad, bad, folder="javascript: a#b?c", commit=bad, versions={bad: bad})
    page = render_page([run], tmp_path, title=bad, intro=bad, details={bad: bad})

    assert "script" not in page.tags and page.tags.count("img") == 1
    assert "alert(1)" in page.text
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links and all((tmp_path / unquote(link)).is_file() for link in links)
    assert not any(character in link for link in links for character in ":#? ")


def test_empty_lines_part_the_intro(four_runs, tmp_path):
    page = render_page(four_runs, tmp_path, intro="One\nline.\n\nAnother.\n")
    assert "One line.\nAnother." in re.sub(r"\s*\n\s*", "\n", page.text)


def test_the_same_runs_give_the_same_bytes(four_runs, tmp_path):
    first, second = (write_report("Title", "Text", four_runs, tmp_path / name) for name in ("a", "b"))
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)


def test_no_runs_give_an_empty_report(tmp_path):
    assert "Title" in render_page([], tmp_path).text


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the report"):
        write_report("Title", "Text", [], tmp_path / "file")
