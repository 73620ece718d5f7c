"""The ablation's report, and the page in it."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from experiments import ablation
from resnet_jax.errors import UserError
from resnet_jax.report.grid import to_markdown
from resnet_jax.report.page import Section, write_page
from resnet_jax.report.table import runs_grid


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


def render_page(runs, folder, command="make ablation"):
    return Page(ablation.draw(runs, folder, command)["index.html"].read_text())


def test_writes_all_files_and_says_where(four_runs, tmp_path):
    paths = ablation.draw(four_runs, tmp_path / "new" / "report", "make ablation")

    assert set(paths) == {"table.md", "curves.png", "curves.svg", "index.html"}
    assert all(path == tmp_path / "new" / "report" / name and path.stat().st_size for name, path in paths.items())
    assert paths["table.md"].read_text() == to_markdown(runs_grid(four_runs))


def test_the_page_opens_offline(four_runs, tmp_path):
    page = render_page(four_runs, tmp_path / "report")

    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not re.match(r"\s*(https?:)?//", value or ""), (tag, name, value)
        if name in ("src", "srcset"):
            assert value.startswith("data:image/svg+xml;base64,")
    assert "url(" not in page.text and "@import" not in page.text


def test_the_page_shows_every_cell_and_where_it_comes_from(four_runs, tmp_path):
    page = render_page(four_runs, tmp_path / "report")

    for cell in [cell for row in runs_grid(four_runs).texts() for cell in row]:
        assert cell in page.text
    for fact in (
        "hash20",
        "hash56",
        "0123abc",
        "cpu cores 2",
        "jax 0.12.0",
        "540 steps of 64",
        "cifar_resnet20 on digits",
    ):
        assert fact in page.text
    assert "make ablation" in page.text
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href") and value[0] != "#"]
    assert "../runs/plain-20/result.json" in links
    assert all((tmp_path / "report" / unquote(link)).is_file() for link in links)


def test_an_unfinished_run_is_listed_as_that(make_run, tmp_path):
    runs = [make_run("ResNet-20", "residual"), make_run("ResNet-56", "residual", 56, finished=False)]
    page = render_page(runs, tmp_path / "report")

    assert "ResNet-56: not finished" in page.text
    assert not any("ResNet-56/result.json" in (value or "") for _, _, value in page.attributes)
    assert page.text.count("4.44") == 2  # in the table and beside the record


def test_what_comes_from_outside_is_escaped(make_run, tmp_path):
    bad = '"><script>alert(1)</script><img src=http://x/y onerror=z>'
    run = make_run(bad, bad, folder="javascript: a#b?c", commit=bad, versions={bad: bad})
    section = Section(
        bad,
        bad,
        bad,
        runs_grid([run], [bad]),
        {bad: [run]},
        pictures=[ablation.draw([run], tmp_path, bad)["curves.svg"]],
    )
    write_page(tmp_path / "bad.html", bad, [bad], [section])
    page = Page((tmp_path / "bad.html").read_text())

    assert "script" not in page.tags and page.tags.count("img") == 1
    assert "alert(1)" in page.text
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href") and value[0] != "#"]
    assert links and all((tmp_path / unquote(link)).is_file() for link in links)
    assert not any(character in link for link in links for character in ":#? ")


def test_the_same_runs_give_the_same_bytes(four_runs, tmp_path):
    first, second = (ablation.draw(four_runs, tmp_path / name, "make ablation") for name in ("a", "b"))
    assert all(first[name].read_bytes() == second[name].read_bytes() for name in first)


def test_no_runs_give_an_empty_report(tmp_path):
    assert ablation.TITLE in render_page([], tmp_path).text


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file"):
        ablation.draw([], tmp_path / "file", "make ablation")
