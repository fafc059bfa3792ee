"""Damaged `.npz` files are refused, wherever the damage is."""

import io
import zipfile

import numpy as np
import pytest

from mobiledeploy.data.arrays import read_arrays
from mobiledeploy.errors import DataError

PIXELS = np.zeros((2, 8, 8, 3), np.uint8)


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("good", "bad"),
    [(b"(2, 8, 8, 3)", b"(2, 8, 8, 3}"), (b"'descr'", b"'descr("), (b"{", b"(")],
    ids=["brackets", "quotes", "tuple"],
)
def test_a_header_that_is_no_literal_is_refused(good, bad, tmp_path):
    path = archive(tmp_path / "x.npz", images=npy(PIXELS).replace(good, bad, 1))
    with pytest.raises(DataError, match=r"Could not read .*x\.npz"):
        read_arrays(path, 3)


@pytest.mark.parametrize("damaged", ["images", "labels"])
def test_a_member_that_is_no_array_is_refused(damaged, tmp_path):
    members = {"images": npy(PIXELS), "labels": npy(np.arange(2))} | {damaged: b"text"}
    with pytest.raises(DataError, match=f"`{damaged}` is not an array"):
        read_arrays(archive(tmp_path / "x.npz", **members), 3)
