"""Disks that are full, have no inodes, or are read-only: exit code 4, and nothing is lost.

The disks are tmpfs, which only root can mount. Real bytes are written; the network is quantized and
encoded once for all tests.
"""

import subprocess
from pathlib import Path

import pytest
from pairs import contents, quick_export, write_earlier
from tiny import NETWORK

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.pipeline import deploy as deployment

pytestmark = pytest.mark.ci
PAGE = 4096  # what tmpfs counts in


class Disk:
    """A tmpfs.

    Args:
        path: Where it is mounted.
    """

    def __init__(self, path: Path):
        path.mkdir()
        self.path = path
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("this user or container cannot mount a tmpfs")

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def used(self):
        return sum(-(-path.stat().st_size // PAGE) * PAGE for path in self.path.rglob("*.*"))

    def leave(self, free_bytes):
        """Shrink the disk to what it holds and so much room."""
        pages = self.used() // PAGE + free_bytes // PAGE
        self.remount(f"size={max(1, pages) * PAGE}")


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", disk.path], check=True)


@pytest.fixture(scope="module")
def write_pair():
    with quick_export() as function:
        yield function


@pytest.fixture
def earlier(disk, write_pair):
    """The files of an earlier export on the disk; other bytes than the new ones."""
    write_earlier(write_pair, disk.path / "out")
    return contents(disk.path)


def refusal(write_pair, out):
    """Return the error of an export; None if it succeeds."""
    try:
        write_pair(out)
    except RuntimeFailedError as error:
        return error
    return None


def test_a_disk_that_fills_up_at_each_write(disk, earlier, write_pair):
    out = disk.path / "out"
    room = sum(map(len, earlier.values())) + 12 * PAGE
    refused = set()
    for free in range(0, room, 2 * PAGE):
        disk.leave(free)
        error = refusal(write_pair, out)
        if error is None:
            break
        refused.add(Path(error.message.partition("Could not write ")[2].partition(":")[0]))
        assert "No space left on device" in error.message
        assert error.exit_code == 4
        assert contents(disk.path) == earlier
    else:
        pytest.fail("there was never enough room")
    assert refused == {disk.path / name for name in earlier}
    assert set(contents(disk.path)) == set(earlier)
    assert not set(contents(disk.path).values()) & set(earlier.values())


def test_a_disk_without_inodes(disk, earlier, write_pair):
    inodes = len(list(disk.path.rglob("*"))) + 1  # and the root
    refused = 0
    for free in range(20):
        disk.remount(f"nr_inodes={inodes + free}")
        error = refusal(write_pair, disk.path / "out")
        if error is None:
            break
        refused += 1
        assert "No space left on device" in error.message
        assert contents(disk.path) == earlier
    assert 3 <= refused < 20
    assert set(contents(disk.path)) == set(earlier)


def test_a_read_only_disk(disk, earlier, write_pair):
    disk.remount("ro")
    with pytest.raises(RuntimeFailedError, match="Read-only file system"):
        write_pair(disk.path / "out")
    assert contents(disk.path) == earlier


def test_a_disk_that_becomes_read_only_on_the_way(disk, earlier, write_pair, monkeypatch):
    def failing(*arguments, **options):
        disk.remount("ro")
        return real(*arguments, **options)

    real = deployment.write_manifest
    monkeypatch.setattr(deployment, "write_manifest", failing)
    with pytest.raises(RuntimeFailedError, match="Read-only file system"):
        write_pair(disk.path / "out")
    after = contents(disk.path)
    assert {path: after[path] for path in earlier} == earlier


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("inspect", "onnx"), id="inspect onnx"),
        pytest.param(("inspect", "pte"), id="inspect pte"),
        pytest.param(("bench", "onnx", "--runs", 2), id="bench"),
        pytest.param(("bench", "pte", "--runs", 2, "--profile"), id="profile"),
        pytest.param(("export", "pte"), id="export"),
    ],
)
def test_a_full_tmpdir_is_named(mobiledeploy, pair, disk, tmp_path, arguments):
    (disk.path / "fill.bin").touch()
    disk.leave(2 * PAGE)
    command, suffix, *options = arguments
    (artifact,) = (path for path in pair if path.suffix == f".{suffix}")
    if command == "export":
        artifact, options = "v2", (*NETWORK, "--format", suffix, "--out", tmp_path / "out")
    environment = {"TMPDIR": str(disk.path)}
    done = mobiledeploy(command, artifact, *options, cwd=disk.path, env=environment)
    assert done.returncode == 4, done.stderr
    assert str(disk.path) in done.stderr.replace("\n", "")
    assert "TMPDIR" in done.stderr
    assert [path.name for path in disk.path.iterdir()] == ["fill.bin"]


@pytest.mark.slow  # tests/pipeline/test_network_cache.py has a cache that cannot be written
@pytest.mark.parametrize("options", ["size=4k", "nr_inodes=1", "ro"])
def test_a_cache_without_room_is_a_warning(mobiledeploy, workplace, tmp_path, disk, options):
    disk.remount(options)
    done = mobiledeploy(
        *("export", "v1", "--int8", "--width", 0.25, "--resolution", 32, "--weights", "random"),
        *("--num-classes", 10, "--ptq", "fast", "--calib-data", "pictures", "--format", "tflite"),
        *("--out", tmp_path / "out"),
        cwd=workplace,
        env={"MOBILEDEPLOY_CACHE": str(disk.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "The int8 network was not kept in the cache" in done.stderr.replace("\n", " ")
    assert len(list((tmp_path / "out").iterdir())) == 2
    # records of tried artifacts are empty files, which fit
    left = [path for path in disk.path.rglob("*") if path.is_file() and path.parent.name != "tried"]
    assert left == []
