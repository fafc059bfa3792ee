"""Installing the native runner: the scripts, run by this machine's shell."""

import shutil

import pytest

from mobiledeploy.devices.native import bundle as bundle_module
from mobiledeploy.devices.native.bundle import SUMS, Bundle, runner_folder, runner_key
from mobiledeploy.devices.native.place import RunnerPlace
from mobiledeploy.errors import RuntimeFailedError


@pytest.fixture
def made(tmp_path):
    """A bundle of small files."""
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "runner").write_bytes(b"program" * 1000)
    bundle_module._finish(folder, "aarch64")
    return Bundle.open(folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return RunnerPlace(
        uri="ssh://pi", home="~/a b/runners", command=lambda argv: argv, timeout_s=60
    )


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home" / "a b" / "runners"


def test_a_bundle_is_installed_once_and_can_be_removed(made, place, home):
    assert not place.has(made)
    assert place.install(made) == len(made.pack())
    folder = home / runner_folder()
    assert place.folder == f"~/a b/runners/runner-{runner_key()}"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in made.folder.iterdir()
    }
    assert (folder / "runner").stat().st_mode & 0o111
    assert place.has(made)
    (home / "runner-older").mkdir()
    (home / ".runner-interrupted").mkdir()
    removed = [line.rpartition("/")[2] for line in place.clean()]
    assert sorted(removed) == sorted([".runner-interrupted", runner_folder(), "runner-older"])
    assert not home.exists()
    assert place.clean() == []


def test_another_bundle_of_the_same_version_is_replaced(made, place, home):
    place.install(made)
    (made.folder / "runner").write_bytes(b"other")
    (made.folder / SUMS).write_text(bundle_module._sums(made.folder))
    assert not place.has(made)
    place.install(made)
    assert (home / runner_folder() / "runner").read_bytes() == b"other"


def test_leftovers_of_an_interrupted_installation_are_removed(made, place, home):
    (home / ".runner-old").mkdir(parents=True)
    place.install(made)
    assert [path.name for path in home.iterdir()] == [runner_folder()]


def damaged(argv):
    """Change a byte of what is sent, inside of the compressed data."""
    change = "import sys; d = sys.stdin.buffer.read(); "
    change += "sys.stdout.buffer.write(d[:-30] + bytes([d[-30] ^ 1]) + d[-29:])"
    return ["sh", "-c", 'python3 -c "$1" | { shift; exec "$@"; }', "sh", change, *argv]


def truncated(argv):
    return ["sh", "-c", 'head -c 200 | { exec "$@"; }', "sh", *argv]


def without_tar(argv):
    return ["env", "PATH=/nowhere", shutil.which("sh"), *argv[1:]]


def unreachable(_):
    return ["/nowhere/ssh"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (damaged, "could not install"),
        (truncated, "could not install"),
        (without_tar, "not found"),
        (unreachable, "could not be reached: .*No such file"),
        (lambda _: ["true"], r"could not install or find the native runner \(exit code 0\)"),
    ],
)
def test_a_failed_installation_keeps_what_was_there(command, message, made, place, home):
    place.install(made)
    before = (home / runner_folder() / "runner").read_bytes()
    (made.folder / "runner").write_bytes(b"newer" * 1000)
    (made.folder / SUMS).write_text(bundle_module._sums(made.folder))
    broken = RunnerPlace(uri="ssh://pi", home=place.home, command=command, timeout_s=60)
    with pytest.raises(RuntimeFailedError, match=message):
        broken.install(made)
    assert [path.name for path in home.iterdir()] == [runner_folder()]
    assert (home / runner_folder() / "runner").read_bytes() == before


def test_files_that_do_not_match_their_list_are_refused(made, place, home):
    (made.folder / "runner").write_bytes(b"not what the list says")
    with pytest.raises(RuntimeFailedError, match="the files arrived damaged"):
        place.install(made)
    assert list(home.iterdir()) == []


def test_a_device_that_does_not_answer_is_an_error(made, place):
    hangs = RunnerPlace(
        uri="adb://", home=place.home, command=lambda _: ["sleep", "60"], timeout_s=0.2
    )
    with pytest.raises(RuntimeFailedError, match="timed out"):
        hangs.has(made)
