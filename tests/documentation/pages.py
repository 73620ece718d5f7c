"""The commands of README.md, CONTRIBUTING.md and docs/, as they stand on the pages."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

#: How a line of a block begins that is a command; all else in blocks is output, or code of another language.
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:(?:\.venv/bin/)?python3? |make |pip |srun |ray |sbatch |kubectl |gcloud )")

#: A command in a sentence, which may go on over lines, and what in one stands for what the reader puts there.
IN_TEXT = re.compile(r"`((?:[A-Z_]+=\S+\s)*(?:\.venv/bin/)?python\s-m\s(?:resnet_jax|benchmarks)\s[^`]+)`")
PLACEHOLDER = re.compile(r"\bNAME\b|=\.\.\.(\s|$)")


class Command(NamedTuple):
    """A command, and the page and line where it stands."""

    text: str
    place: str

    @property
    def words(self) -> list[str]:
        """The words as a shell reads them, without variables that are set ahead."""
        words = shlex.split(self.text, comments=True)
        while re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        return words


def commands() -> list[Command]:
    """Returns every command of a fenced or an indented block, in the order of the pages."""
    return [command for page in PAGES for command in _of_page(page)]


def commands_in_text() -> list[Command]:
    """Returns the commands of `resnet_jax` and `benchmarks` in sentences that say all of their flags."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in IN_TEXT.finditer(text):
            if not PLACEHOLDER.search(match[1]):
                line = text.count("\n", 0, match.start()) + 1
                found.append(
                    Command(" ".join(match[1].replace(" ...]", "]").split()), f"{page.relative_to(ROOT)}:{line}")
                )
    return found


def _of_page(page: Path) -> Iterator[Command]:
    language: str | None = None  # of the fenced block that the line is in
    begun = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            language = line.removeprefix("```").strip() if language is None else None
            continue
        if begun:
            text = line.strip()
        elif language in ("", "bash", "sh", "console"):
            text = line.strip()
        elif language is None and line.startswith("    "):
            text = line.strip()
        else:
            continue
        if not begun and not COMMAND.match(text):
            continue
        begun += text
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        yield Command(begun, f"{page.relative_to(ROOT)}:{number}")
        begun = ""
