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

#: How files begin that are no lists of lines.
_OTHER = re.compile(r"""\s*(\{|\[\s*["'\[{]|<\?xml|<!doctype|<html)""", re.IGNORECASE)

_ENDING = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp)$")


class Row(NamedTuple):
    """Holds a line that is not blank: its number in the file, from 1, and its fields without blanks at their ends."""

    number: int
    cells: tuple[str, ...]


def read_text(path: str | Path, called: str) -> str:
    """Reads a text file without its byte-order mark; lines end in a line feed.

    Raises:
      UserError: naming the file, if it is no text, and the line if it is neither UTF-8 nor UTF-16 with a byte-order
        mark.
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
    if _OTHER.match(text):
        raise UserError(f"{called} is JSON, Python or a web page; give a text file with a line for each, or CSV")
    text = text.rstrip("\x1a")  # the end of a file, for DOS
    return io.StringIO(text, newline=None).read()  # `str.splitlines` would also break lines at rarer characters


def read_class_names(path: str | Path, count: int | None = None) -> tuple[str, ...]:
    """Reads the names of classes, by label: a name on each line, or a label and a name.

    Labels count from 0 or from 1 and may come in any order. A heading is left out. Unless fields are in quotes, commas
    may be part of names.

    Args:
      path: of the file.
      count: number of classes; None: as many as the file names, and a heading is a line with one of `NAME_HEADINGS`.

    Raises:
      UserError: naming the file, and the line where there is one, for another number of names.
    """
    called = str(path)
    text = read_text(path, called)
    rows = [Row(number, tuple(filter(None, _label_and_name(cells)))) for number, cells in _rows(text, called)]
    if count is None:
        count = len(rows) - any(cell.lower() in NAME_HEADINGS for row in rows[:1] for cell in row.cells)
    for table in (rows, rows[1:]):  # without a heading, and with one
        for column in (0, 1):
            if _has_labels(table, column):
                return _numbered(table, column, count, called)
    # Commas and the like are part of names, unless each line has one field.
    lines = rows if all(len(row.cells) == 1 for row in rows) else _rows(text, called, delimiter="")
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


def _rows(text: str, called: str, otherwise: str = "", delimiter: str | None = None) -> list[Row]:
    """Returns the fields of each line that is not blank.

    Args:
      text: lines, each but the last with a line feed.
      called: the file's name in errors.
      otherwise: what separates fields where none of DELIMITERS is in most lines; "": nothing.
      delimiter: what separates fields, whatever lines hold.

    Raises:
      UserError: naming the file and the line, for a quote without an end.
    """
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if _clean(line)]
    if numbered and (excel := re.fullmatch(r"sep=(.)\s*", numbered[0][1])):  # tells Excel what separates fields
        del numbered[0]
        delimiter = excel[1] if delimiter is None else delimiter
    if delimiter is None:
        counts = {d: sum(d in line for _, line in numbered) for d in DELIMITERS}
        delimiter = next((d for d in DELIMITERS if 2 * counts[d] > len(numbered)), otherwise)
    if not delimiter:
        return [Row(number, (_whole(line),)) for number, line in numbered]
    rows = []
    for number, line in numbered:
        fields = re.sub(r"\s", " ", line) if delimiter == " " else line
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


def _label_and_name(cells: tuple[str, ...]) -> tuple[str, ...]:
    """Divides a single field as "3 horse" or "3: horse"."""
    parts = re.fullmatch(r"(\d+)[:.)]?\s+(.+)", cells[0]) if len(cells) == 1 else None
    return (parts[1], parts[2]) if parts else cells


def _has_labels(rows: Sequence[Row], column: int) -> bool:
    """Returns whether one of several columns is numbers."""
    numbers = all(len(row.cells) > column and row.cells[column].isdecimal() for row in rows)
    return numbers and any(len(row.cells) > 1 for row in rows)


def _numbered(rows: Sequence[Row], column: int, count: int, called: str) -> tuple[str, ...]:
    """Returns the names of rows of a label and a name, by label."""
    for row in rows:
        if len(row.cells) != 2:
            raise UserError(f"{called}, line {row.number}: {len(row.cells)} fields; give a label and a name")
    labels = [int(row.cells[column]) for row in rows]
    if sorted(labels) not in (list(range(count)), list(range(1, count + 1))):
        raise UserError(f"{called} has other labels than 0 to {count - 1} or 1 to {count}, each once")
    return tuple(row.cells[1 - column] for _, row in sorted(zip(labels, rows, strict=True)))


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
        raise UserError(
            f"{called} has no line for {some(lost, 3)}; line {rows[0].number} is for {rows[0].cells[0]!r:.60}"
        )
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
