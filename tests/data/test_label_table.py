"""labels.csv as spreadsheets and scripts write it."""

import unicodedata

import pytest

from mobiledeploy.data.label_table import read_label_table
from mobiledeploy.errors import DataError

NAMES = tuple(f"sub/{i}.png" for i in range(4))


def rows(separator: str = ",", path: str = "sub/{}.png", header: str = "file,class_index") -> str:
    lines = [f"{path.format(i)}{separator}{i}" for i in range(4)]
    return "\n".join([*([header.replace(",", separator)] if header else []), *lines]) + "\n"


def read(tmp_path, content, names=NAMES, classes=4, class_names=()):
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_label_table(path, names, classes, class_names)


WRITTEN = {
    "plain": rows(),
    "byte order mark": rows().encode("utf-8-sig"),
    "UTF-16": rows("\t").encode("utf-16"),
    "semicolons": rows(";"),
    "tabs": rows("\t"),
    "bars": rows("|"),
    "Excel's separator line": "sep=;\n" + rows(";"),
    "blanks behind commas": rows(", "),
    "blanks before commas": rows(" ,"),
    "quoted": rows(path='"sub/{}.png"'),
    "Windows' line ends": rows().replace("\n", "\r\n"),
    "empty lines": rows().replace("\n", "\n\n"),
    "./ in paths": rows(path="./sub/{}.png"),
    "backslashes": rows(path="sub\\{}.png"),
    ".\\ in paths": rows(path=".\\sub\\{}.png"),
    "only file names": rows(path="{}.png"),
    "other case": rows(path="{}.PNG"),
    "paths of another machine": rows(path="C:\\data\\set\\{}.png"),
    "filename and label": rows(header="filename,label"),
    "capitals": rows(header="File Name,Class ID"),
    "no header": rows(header=""),
    "more columns": "id,file,width,class_index\n"
    + "".join(f"9,sub/{i}.png,32,{i}\n" for i in range(4)),
    "whole floats": rows().replace(",3", ",3.0"),
    "index before name": "class_index,label,file\n"
    + "".join(f"{i},c{i},sub/{i}.png\n" for i in range(4)),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_table_is_read_whatever_wrote_it(way, tmp_path):
    table = read(tmp_path, WRITTEN[way])
    assert [table.index_of(name) for name in NAMES] == [0, 1, 2, 3]
    assert table.notes == ()


def test_absolute_paths_of_the_folder_are_relative_to_it(tmp_path):
    table = read(tmp_path, rows(path=f"{tmp_path}/sub/{{}}.png"), (*NAMES, "other/0.png"))
    assert table.index_of("sub/2.png") == 2


def test_decomposed_characters_are_the_composed_ones(tmp_path):
    """macOS writes them apart, spreadsheets together."""
    name = "hunde/häschen.png"
    for form in ("NFC", "NFD"):
        table = read(
            tmp_path,
            f"file,label\n{unicodedata.normalize('NFC', name)},1\n",
            (unicodedata.normalize(form, name),),
        )
        assert table.index_of(unicodedata.normalize(form, name)) == 1


def test_the_encoding_of_windows_is_read(tmp_path):
    assert (
        read(tmp_path, "file;label\nBär.png;2\n".encode("cp1252"), ("Bär.png",)).index_of("Bär.png")
        == 2
    )


def test_a_file_name_that_occurs_twice_decides_nothing(tmp_path):
    table = read(tmp_path, "file,class_index\n0.png,1\n", ("a/0.png", "b/0.png"))
    with pytest.raises(DataError, match=r"no line for a/0\.png; its first line is for 0\.png"):
        table.index_of("a/0.png")


@pytest.mark.parametrize("names", [("cat", "dog", "emu"), ("Cat", "DOG", "Emu")])
def test_names_of_classes_are_those_of_the_network(names, tmp_path):
    content = "filename,label\n" + "".join(f"{i}.png,{n}\n" for i, n in enumerate(names))
    table = read(tmp_path, content, ("0.png", "1.png", "2.png"), 4, ("emu", "dog", "cat", "ant"))
    assert [table.index_of(f"{i}.png") for i in range(3)] == [2, 1, 0]
    assert table.notes == ()


def test_unknown_names_are_numbered_in_their_order_if_there_are_as_many_as_classes(tmp_path):
    content = "filename,label\n0.png,dog\n1.png,cat\n2.png,dog\n"
    table = read(tmp_path, content, ("0.png", "1.png", "2.png"), 2)
    assert [table.index_of(f"{i}.png") for i in range(3)] == [1, 0, 1]
    assert any("alphabetical order" in note for note in table.notes)
    other = read(tmp_path, content, ("0.png", "1.png", "2.png"), 3)
    with pytest.raises(DataError, match="line 2: class_index is 'dog'; the network has 3 classes"):
        other.index_of("0.png")


def test_a_line_that_is_not_needed_may_be_wrong(tmp_path):
    table = read(tmp_path, "file,class_index\nsub/0.png,1\nsub/1.png,99\nsub/2.png,?\n")
    assert table.index_of("sub/0.png") == 1
    for name, line in (("sub/1.png", "line 3"), ("sub/2.png", "line 4")):
        with pytest.raises(DataError, match=line):
            table.index_of(name)


def test_other_columns_are_shown_with_invisible_characters(tmp_path):
    with pytest.raises(DataError, match=r"columns '\\u200bfile', n; expected file and") as error:
        read(tmp_path, "\u200bfile,n\n")
    assert "Begin the file with the line file,class_index" in error.value.remedy
