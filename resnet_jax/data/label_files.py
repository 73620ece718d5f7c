"""Reads text files of labels and of class names, as editors, spreadsheets and Kaggle write them.

UTF-8, or UTF-16 with a byte-order mark; lines that end as on any system; blank lines; fields between tabs, semicolons,
commas or blanks, in quotes or not.
"""

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from resnet_jax.errors import UserError, some

#: What separates fields, apart from blanks. Text has commas more often than semicolons, and tabs hardly ever.
DELIMITERS = ("\t", ";", ",")

#: Headings of a column of class names, in lower case.
NAME_HEADINGS = frozenset(
    {"class", "classes", "class name", "class_name", "classname", "name", "names", "label", "labels", "category"}
)

#: Bytes above which a file is refused: labels of all images of ImageNet take less.
MOST_BYTES = 2**28

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

_WNID = re.compile(r"n\d{8}", re.IGNORECASE)

_ENDING = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp)$")


class Row(NamedTuple):
    """Holds a line that is not blank: its number in the file, from 1, and its fields without blanks at their ends."""

    number: int
    cells: tuple[str, ...]


def read_text(path: str | Path, called: str) -> str:
    """Reads a text file without its byte-order mark; lines end in a line feed.

    Raises:
      UserError: naming the file, and the line if it is neither UTF-8 nor UTF-16 with a byte-order mark.
    """
    try:
        file = Path(path).expanduser()
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{called} has more than {MOST_BYTES:,} bytes, which no file of labels has")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{called} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    mark, encoding = next(((m, e) for m, e in _MARKS if data.startswith(m)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise UserError(f"{called}, line {number}: not in {encoding.upper()}; save the file as UTF-8") from error
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{called}, line {number}: a zero byte, which text has not; save the file as UTF-8")
    return io.StringIO(text, newline=None).read()  # `str.splitlines` would also break lines at rarer characters


def read_class_names(path: str | Path, count: int) -> tuple[str, ...]:
    """Reads the names of `count` classes, by label: a name on each line, or a label and a name.

    Labels count from 0 or from 1 and may come in any order. A heading is left out. Unless fields are in quotes, commas
    may be part of names.

    Raises:
      UserError: naming the file, and the line where there is one, for another number of names.
    """
    called = str(path)
    text = read_text(path, called)
    lines = [Row(number, (name,)) for number, line in enumerate(text.split("\n"), start=1) if (name := _whole(line))]
    rows = [Row(row.number, tuple(filter(None, row.cells))) for row in _rows(text, called)]
    if (numbered := _numbered(rows, count)) is not None:
        return numbered
    if all(len(row.cells) == 1 for row in rows):
        lines = rows
    elif _labels(rows, 0, count) or _labels(rows[1:], 0, count):
        wrong = next(row for row in rows if len(row.cells) != 2)
        raise UserError(f"{called}, line {wrong.number}: {len(wrong.cells)} fields; give a label and a name")
    names = [row.cells[0] for row in lines]
    if len(names) == count + 1 and names[0].lower() in NAME_HEADINGS:
        del names[0]
    if len(names) != count:
        raise UserError(
            f"{called} names {len(names):,} classes, and {count:,} are expected: a name on each line, or a label and "
            "a name"
        )
    return tuple(names)


def read_image_labels(path: str | Path, images: Sequence[str], known: Collection[str], called: str) -> list[str]:
    """Reads the WordNet id of each image.

    A line has an image and its id, in any order, the image with or without its folder and the ending of its name; or
    an id alone, in the order of the images' sorted names. What follows the id, as Kaggle's boxes, is left out, and so
    are a heading and lines of other images.

    Args:
      path: of the file.
      images: file names.
      known: the ids that there are.
      called: the file's name in errors.

    Returns:
      The ids in the order of `images`.

    Raises:
      UserError: naming the file, and the line where there is one.
    """
    stems = {_stem(image) for image in images}
    rows = _rows(read_text(path, called), called, " ")
    if rows and _id_column(rows[0]) is None and not rows[0].cells[-1].isdecimal() and not _names_any(rows[0], stems):
        del rows[0]  # a heading
    if not rows:
        raise UserError(f"{called} is empty; give a line with an image and its WordNet id, as n01440764, for each")
    if all(row.cells[-1].isdecimal() and _id_column(row) is None for row in rows):
        # The development kit numbers classes in another order than that of the sorted ids: all labels would be wrong.
        raise UserError(f"{called}, line {rows[0].number}: has numbers; give WordNet ids, as n01440764")
    columns = [_checked_id_column(row, known, called) for row in rows]
    ids = [row.cells[column].split()[0].lower() for row, column in zip(rows, columns, strict=True)]
    if any(_names_any(row, stems) for row in rows) or any(columns):
        return _by_name(rows, columns, ids, images, called)
    if len(rows) != len(images):
        raise UserError(f"{called} has {len(rows):,} lines for {len(images):,} images")
    order = dict(zip(sorted(images), ids, strict=True))
    return [order[image] for image in images]


def _rows(text: str, called: str, otherwise: str = "") -> list[Row]:
    """Returns the fields of each line that is not blank.

    What separates fields is what most lines hold, or else `otherwise`.

    Raises:
      UserError: naming the file and the line, for a quote without an end.
    """
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if numbered and (excel := re.fullmatch(r"sep=(.)\s*", numbered[0][1])):  # tells Excel what separates fields
        del numbered[0]
        delimiter = excel[1]
    else:
        lines = [line for _, line in numbered]
        delimiter = next((d for d in DELIMITERS if 2 * sum(d in line for line in lines) > len(lines)), otherwise)
    if not delimiter:
        return [Row(number, (name,)) for number, line in numbered if (name := _whole(line))]
    rows = []
    for number, line in numbered:
        fields = line.replace("\t", " ") if delimiter == " " else line
        try:
            (cells,) = csv.reader([fields], delimiter=delimiter, skipinitialspace=True, strict=True)
        except csv.Error as error:
            raise UserError(f"{called}, line {number}: {error}; quotes must be around whole fields") from error
        found = [_clean(cell) for cell in cells]
        if any(found):
            rows.append(Row(number, tuple(filter(None, found) if delimiter == " " else found)))
    return rows


def _clean(field: str) -> str:
    """Takes away blanks at the ends, and byte-order marks where files were joined."""
    return field.strip().strip("\ufeff\u200b").strip()


def _whole(line: str) -> str:
    """Returns a line that is one field, without quotes around all of it."""
    line = _clean(line)
    return line[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', line) else line


def _numbered(rows: Sequence[Row], count: int) -> tuple[str, ...] | None:
    """Returns the names of rows of a label and a name, by label; None if they are none."""
    pairs = [Row(row.number, tuple(row.cells[0].split(None, 1))) if len(row.cells) == 1 else row for row in rows]
    if any(len(row.cells) != 2 for row in pairs):
        return None
    for start in (0, 1):  # with a heading
        for column in (0, 1):
            if labels := _labels(pairs[start:], column, count):
                return tuple(row.cells[1 - column] for _, row in sorted(zip(labels, pairs[start:], strict=True)))
    return None


def _labels(rows: Sequence[Row], column: int, count: int) -> list[int]:
    """Returns the numbers in a column if they are those from 0 or from 1 on; empty otherwise."""
    found = [int(row.cells[column]) if row.cells[column].isdecimal() else -1 for row in rows]
    return found if sorted(found) in (list(range(count)), list(range(1, count + 1))) else []


def _by_name(rows: Sequence[Row], columns: Sequence[int], ids: Sequence[str], images: Sequence[str],
             called: str) -> list[str]:  # fmt: skip
    """Returns the ids of images by their names in the other fields: as they are, or else without folder and ending."""
    exact: dict[str, dict[str, int]] = {}  # of each name its ids, and the line of each
    short: dict[str, dict[str, int]] = {}
    for row, column, wnid in zip(rows, columns, ids, strict=True):
        for cell in filter(None, row.cells[:column] or row.cells[column + 1 :]):
            exact.setdefault(cell, {}).setdefault(wnid, row.number)
            short.setdefault(_stem(cell), {}).setdefault(wnid, row.number)
    labels: list[str] = []
    lost: list[str] = []
    for image in images:
        found = exact.get(image) or short.get(_stem(image)) or {}
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise UserError(f"{called}, line {second}: {image} is {other} here and {one} in line {first}")
        labels += found.keys()
        lost += [] if found else [image]
    if lost:
        raise UserError(f"{called} has no line for {some(lost, 3)}")
    return labels


def _stem(name: str) -> str:
    """Returns a file's name without its folder, on any system, and without the ending of an image, in lower case."""
    return _ENDING.sub("", re.split(r"[/\\]", name)[-1].lower())


def _names_any(row: Row, stems: Collection[str]) -> bool:
    return any(_stem(cell) in stems for cell in row.cells)


def _id_column(row: Row) -> int | None:
    """Returns the first field that begins with a WordNet id."""
    return next((i for i, cell in enumerate(row.cells) if cell and _WNID.fullmatch(cell.split()[0])), None)


def _checked_id_column(row: Row, known: Collection[str], called: str) -> int:
    column = _id_column(row)
    if column is None:
        shown = " ".join(row.cells)[:60]
        raise UserError(f"{called}, line {row.number}: no WordNet id, as n01440764, in {shown!r}")
    if (wnid := row.cells[column].split()[0]).lower() not in known:
        raise UserError(f"{called}, line {row.number}: {wnid} is not among the {len(known):,} WordNet ids")
    return column
