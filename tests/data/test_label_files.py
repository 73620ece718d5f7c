"""Files of labels and class names as editors, spreadsheets and Kaggle write them: the same values from each."""

import re
from pathlib import Path

import pytest

from resnet_jax.data.imagenet.wnids import official_wnids, validation_labels
from resnet_jax.data.label_files import read_class_names
from resnet_jax.errors import UserError

CASES = Path(__file__).parents[3] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: The first six official labels.
IDS = ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729", "n01735189"]
STEMS = [f"ILSVRC2012_val_0000000{i}" for i in range(1, 7)]
IMAGES = [f"{stem}.JPEG" for stem in STEMS]


def lines(form, ending="\n", heading=""):
    """A line for each image, from a form with {stem} and {id}."""
    return heading + "".join(form.format(stem=s, id=i) + ending for s, i in zip(STEMS, IDS, strict=True))


@needs_cases
@pytest.mark.parametrize(
    "file",
    ["labels_bom/val_labels_bom.txt", "labels_kaggle_csv/LOC_val_solution.csv", "labels_kaggle_csv/nosuffix.txt"],
)
def test_the_cases_of_labels(file):
    assert validation_labels(IMAGES, str(CASES / file)) == IDS == validation_labels(IMAGES, None)


@needs_cases
def test_the_case_of_class_names():
    assert read_class_names(CASES / "labels_bom/bom_classes.txt", 10) == CIFAR


@pytest.mark.parametrize(
    "content",
    {
        "as ever": lines("{stem}.JPEG {id}"),
        "ids alone": lines("{id}"),
        "ids alone, with a heading": lines("{id}", heading="label\n"),
        "ids and boxes": lines("{id} 1 2 3 4"),
        "no line end at the end": lines("{stem}.JPEG {id}").rstrip(),
        "CRLF": lines("{stem}.JPEG {id}", "\r\n"),
        "CR, as on old Macs": lines("{stem}.JPEG {id}", "\r"),
        "blanks at the ends, blank lines": lines("  {stem}.JPEG \t {id}  ", "\n \n\n"),
        "lower-case endings": lines("{stem}.jpeg {id}"),
        "Windows paths": lines("C:\\data\\val\\{stem}.JPEG,{id}", "\r\n"),
        "Windows paths with blanks": lines("C:\\My data\\val\\{stem}.JPEG {id}", "\r\n"),
        "paths": lines("val/{stem}.JPEG {id}"),
        "Kaggle's": lines("{stem},{id} 1 2 3 4 {id} 5 6 7 8 ", heading="ImageId,PredictionString\n"),
        "semicolons of a German Excel": lines("{stem};{id};0,5", "\r\n", "Bild;Klasse;Anteil\r\n"),
        "Excel's hint": lines("{stem};{id}", "\r\n", "sep=;\r\nBild;Klasse\r\n"),
        "tabs": lines("{stem}\t{id}", heading="image\tlabel\n"),
        "tabs and blanks mixed": lines("{stem}.JPEG {id}", "\n").replace(" ", "\t", 2),
        "quotes": lines('"{stem}.JPEG","{id}"', heading='"file","wnid"\n'),
        "quoted blanks": lines('"my folder/{stem}.JPEG" {id}'),
        "empty columns and rows": lines("{stem},{id},,", "\n,,,\n"),
        "the id ahead": lines("{id},{stem}.JPEG", heading="wnid,file\n"),
        "pandas's index": ",ImageId,label\n"
        + "".join(f"{i},{s},{w}\n" for i, (s, w) in enumerate(zip(STEMS, IDS, strict=True))),
        "upper case": lines("{stem}.JPEG {id}").upper(),
        "other images, too": lines("{stem}.JPEG {id}") + "ILSVRC2012_val_00000007.JPEG n01440764\n",
        "in another order": "".join(reversed(lines("{stem}.JPEG {id}").splitlines(True))),
        "the same line twice": lines("{stem}.JPEG {id}") * 2,
        "blanks that do not break, as in web pages": lines("{stem}.JPEG\u00a0{id}"),
        "the end of a file for DOS": lines("{stem}.JPEG {id}") + "\x1a",
        "joined files": "".join("\ufeff" + line for line in lines("{stem},{id}").splitlines(True)),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_in_many_forms(content, encoding, tmp_path):
    (tmp_path / "labels").write_bytes(content[1].encode(encoding))
    shown = list(reversed(IMAGES))  # the order of the answer is that of the question
    assert validation_labels(shown, str(tmp_path / "labels")) == list(reversed(IDS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines("{stem},{id}", heading="a,b\n").replace(IDS[2], "nan"), "line 4: no WordNet id.* '.*00003 nan'"),
        (lines("{stem},{id}").replace(IDS[2], ""), "line 3: no WordNet id, as n01440764, in"),
        (lines("{stem} {id}").replace(IDS[2], "n99999999"), "line 3: n99999999 is not among the 1,000"),
        (lines("{stem} {id}") + f"{STEMS[1]} n01440764\n",
         f"line 7: {IMAGES[1]} is n01440764 here and n09193705 in line 2"),
        (lines("{stem} {id}").replace(STEMS[4], "another"),
         f"has no line for {IMAGES[4]}; line 1 is for '{STEMS[0]}'$"),
        (lines("{id}") + IDS[0], "has 7 lines for 6 images"),
        (lines("490"), "line 1: has numbers; give WordNet ids"),
        (lines("{stem},490", heading="image,label\n"), "line 2: has numbers; give WordNet ids"),
        (lines("{stem},{id}") + '"a,n01440764\n', "line 7: .*quotes must be around whole fields"),
        ('{"ILSVRC2012_val_00000001": "n01751748"}', "is JSON, Python or a web page; give a text file"),
        ("<!DOCTYPE html>\n<p>404", "is JSON, Python or a web page"),
        ("", "is empty"),
        ("\n \r\n", "is empty"),
        ("ImageId,PredictionString\n", "is empty"),
        (lines("{stem} {id}").encode("utf-16-le"), "line 1: a zero byte"),
        ("Küche n01440764\n".encode("cp1252"), "line 1: not in UTF-8; save the file as UTF-8"),
        (b"\xff\xfea", "line 1: not in UTF-16-LE"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(content, message, tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"^--val_labels={re.escape(str(path))}.*{message}") as raised:
        validation_labels(IMAGES, str(path))
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_are_said(tmp_path):
    for path, message in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"{path} cannot be read: {message}"):
            validation_labels(IMAGES, str(path))


def test_images_that_differ_in_their_ending_alone_are_told_apart(tmp_path):
    (tmp_path / "labels").write_text("a.png n01440764\na.JPEG n01443537\n")
    assert validation_labels(["a.JPEG", "a.png"], str(tmp_path / "labels")) == ["n01443537", "n01440764"]
    with pytest.raises(UserError, match="line 2: a.jpg is n01443537 here and n01440764 in line 1"):
        validation_labels(["a.jpg"], str(tmp_path / "labels"))


THREE = ("tench, Tinca tinca", 'a "great" white shark', "Küche\u2028und Bad")


@pytest.mark.parametrize(
    "content",
    {
        "a name on each line": "\n".join(THREE),
        "blank lines": "\n \n".join(THREE) + "\n\n",
        "CRLF": "\r\n".join(THREE) + "\r\n",
        "a heading": "\n".join(("Class", *THREE)),
        "a quoted column": '"tench, Tinca tinca"\n"a ""great"" white shark"\nKüche\u2028und Bad\n',
        "a quoted column with a heading": 'name\n"tench, Tinca tinca"\n"a ""great"" white shark"\nKüche\u2028und Bad\n',
        "labels": 'label,name\n0,"tench, Tinca tinca"\n1,"a ""great"" white shark"\n2,Küche\u2028und Bad\n',
        "labels from 1": '1,"tench, Tinca tinca"\n2,"a ""great"" white shark"\n3,Küche\u2028und Bad\n',
        "labels in disorder": f'"{THREE[0]}";0\n{THREE[2]};2\n"a ""great"" white shark";1\n',
        "labels and blanks": "".join(f"{i}  {name}\n" for i, name in enumerate(THREE)),
        "labels with colons": "".join(f"{i}: {name}\n" for i, name in enumerate(THREE)),
        "tabs": "".join(f"{i}\t{name}\n" for i, name in enumerate(THREE)),
        "empty columns": 'name;;\n"tench, Tinca tinca";;\n"a ""great"" white shark";;\nKüche\u2028und Bad;;\n',
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_class_names_in_many_forms(content, encoding, tmp_path):
    (tmp_path / "names").write_bytes(content[1].encode(encoding))
    assert read_class_names(tmp_path / "names", 3) == THREE


def test_class_names_that_are_numbers_or_headings_stay(tmp_path):
    (tmp_path / "names").write_text("0\n1\n2\n")
    assert read_class_names(tmp_path / "names", 3) == ("0", "1", "2")
    (tmp_path / "names").write_text("label\nname\n")
    assert read_class_names(tmp_path / "names", 2) == ("label", "name")
    (tmp_path / "names").write_text("\n".join(f"{i} {wnid}" for i, wnid in enumerate(official_wnids())))
    assert read_class_names(tmp_path / "names", 1000) == official_wnids()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\n", "names 2 classes, and 3 are expected: a name on each line, or a label and a name"),
        ("a\nb\nc\nd\n", "names 4 classes, and 3 are expected"),
        ("", "names 0 classes"),
        ("0,a\n1,b\n3,c\n", "has other labels than 0 to 2 or 1 to 3, each once"),
        ("0,a\n1,b\n1,c\n", "has other labels than 0 to 2"),
        ("label,name\n0,a\n1,\n2,c\n", "line 3: 1 fields; give a label and a name"),
        ("{0: 'tench', 1: 'goldfish', 2: 'shark'}", "is JSON, Python or a web page; give a text file"),
        ('["a", "b", "c"]', "is JSON"),
        ("0,n01440764,tench\n1,n01443537,goldfish\n2,n01484850,shark\n", "line 1: 3 fields; give a label and a name"),
    ],
)
def test_other_numbers_of_class_names_are_refused(content, message, tmp_path):
    (tmp_path / "names").write_text(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / 'names'))}.*{message}"):
        read_class_names(tmp_path / "names", 3)
