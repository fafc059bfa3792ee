import re
from pathlib import Path

import pytest

from mobiledeploy.data import labels as module
from mobiledeploy.data.labels import load_labels
from mobiledeploy.errors import DataError

IMAGENET = Path(module.IMAGENET)


def test_imagenets_names_can_be_asked_for():
    labels = load_labels(IMAGENET, 1000)
    assert len(labels) == len(set(labels)) == 1000
    assert [labels[i] for i in (0, 1, 207, 281, 999)] == [
        "tench",
        "goldfish",
        "golden retriever",
        "tabby",
        "toilet tissue",
    ]


@pytest.mark.shared
def test_imagenets_names_are_in_the_order_of_the_classes(shared):
    """The image files are named `{index}_{synset}_{name}` independently of this package."""
    labels = load_labels(IMAGENET, 1000)

    def words(name: str) -> set[str]:
        return set(re.findall(r"[a-z]+", name.lower()))

    files = sorted((shared / "data/imagenet-sample/eval").glob("*.jpg"))
    shared_words = [
        bool(words(labels[int(path.name[:3])]) & words(path.stem.split("_", 2)[2]))
        for path in files
    ]
    assert len(files) == 200
    assert all(shared_words)


def test_imagenets_names_need_as_many_classes():
    with pytest.raises(DataError, match="1000 names; the network has 1001 classes"):
        load_labels(IMAGENET, 1001)


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / "imagenet").write_text("ant\nbee\n")
    monkeypatch.chdir(tmp_path)
    assert load_labels(IMAGENET, 2) == ("ant", "bee")


def test_names_come_from_a_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffant\r\nbee \ncat\u00e9gorie\n\n", encoding="utf-8")
    assert load_labels(path, 3) == ("ant", "bee", "cat\u00e9gorie")


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        (b"ant\nbee\n", 3, "has 2 names; the network has 3 classes"),
        (b"ant\nbee\n", 1000, "has 2 names; the network has 1000 classes"),
        (b"", 3, "has 0 names"),
        (b"ant\n\nbee\n", 3, "line 2 is empty"),
        (b"\xff\xfe\x00", 3, "Could not read the labels"),
    ],
)
def test_a_file_that_does_not_name_every_class_is_refused(tmp_path, content, classes, message):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_labels(path, classes)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="Could not read the labels"):
        load_labels(tmp_path / "nowhere.txt", 3)


def test_a_missing_file_is_named_once_and_without_the_number_of_its_error(tmp_path):
    missing = tmp_path / "missing.txt"
    with pytest.raises(DataError) as refused:
        load_labels(missing, 3)
    assert str(refused.value) == f"Could not read the labels {missing}: No such file or directory."
