"""The bundle of the native runner: building, packing, and unpacking it."""

import gzip
import io
import platform
import tarfile

import pytest

from mobiledeploy.cli import _run
from mobiledeploy.devices.native import bundle as bundle_module
from mobiledeploy.devices.native import compilers
from mobiledeploy.devices.native.bundle import (
    SUMS,
    Bundle,
    build_bundle,
    cached_bundle,
    runner_key,
    unpack_bundle,
    write_bundle,
)
from mobiledeploy.errors import RuntimeFailedError, UsageError


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A bundle of small files."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "runner").write_bytes(b"program")
    bundle_module._finish(folder, "aarch64")
    return Bundle.open(folder)


def test_a_packed_bundle_is_the_same_in_the_cache_of_another_machine(made, tmp_path):
    path = tmp_path / "out" / "bundle.tar.gz"
    assert write_bundle(made, path) == path.stat().st_size
    assert path.read_bytes() == made.pack()
    with pytest.raises(RuntimeFailedError, match="no native runner for aarch64 on this machine"):
        cached_bundle("aarch64")
    unpacked = unpack_bundle(path)
    assert unpacked == cached_bundle("aarch64") == build_bundle("aarch64")
    assert unpacked.sums_sha256 == made.sums_sha256
    loader, option, folder, program = unpacked.command()
    assert loader == f"{folder}/ld-linux-aarch64.so.1"
    assert (option, program) == ("--library-path", f"{folder}/runner")


def test_clean_removes_the_bundles_of_all_versions(made, tmp_path, capsys):
    path = tmp_path / "bundle.tar.gz"
    write_bundle(made, path)
    folder = unpack_bundle(path).folder
    older = folder.with_name("x86_64-older")
    older.mkdir()
    (folder.parent / "downloads").mkdir()
    assert _run(["device", "clean", "exec:qemu-aarch64"]) == 0
    assert [path.name for path in folder.parent.iterdir()] == ["downloads"]
    told = capsys.readouterr().err.split()
    assert {str(folder), str(older)} < set(told)
    assert _run(["device", "clean", "exec:qemu-aarch64"]) == 0
    assert "Removed nothing" in capsys.readouterr().err


def archive(**files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        gzip.compress(b"nonsense", mtime=0),
        archive(runner=b"program"),
        archive(**{"manifest.json": b"nonsense"}),
        archive(**{"manifest.json": b"{}"}),
        archive(**{"../manifest.json": b"{}"}),
    ],
)
def test_other_files_are_not_bundles(content, made, tmp_path):
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a bundle of the native runner"):
        unpack_bundle(path)
    assert list((tmp_path / "cache" / "runner").iterdir()) == []
    assert made


def test_a_truncated_bundle_is_refused(made, tmp_path):
    path = tmp_path / "bundle.tar.gz"
    write_bundle(made, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match="is not a bundle"):
        unpack_bundle(path)


def test_a_bundle_with_a_changed_file_is_refused(made, tmp_path):
    (made.folder / "runner").write_bytes(b"another program")
    write_bundle(made, tmp_path / "bundle.tar.gz")
    with pytest.raises(UsageError, match=f"is damaged: .* {SUMS} lists"):
        unpack_bundle(tmp_path / "bundle.tar.gz")


def test_a_bundle_of_another_version_is_refused(made, tmp_path, monkeypatch):
    write_bundle(made, tmp_path / "bundle.tar.gz")
    monkeypatch.setattr(bundle_module, "PROTOCOL", 99)
    assert runner_key() != made.key
    with pytest.raises(UsageError, match=f"has the version {made.key}"):
        unpack_bundle(tmp_path / "bundle.tar.gz")


def test_a_bundle_that_cannot_be_written_is_an_error(made, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeFailedError, match="Could not write"):
        write_bundle(made, tmp_path / "file" / "bundle.tar.gz")


@pytest.mark.usefixtures("made")
def test_other_architectures_are_refused():
    with pytest.raises(UsageError, match="no native runner for riscv64"):
        build_bundle("riscv64")


@pytest.mark.usefixtures("made")
def test_a_missing_compiler_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeFailedError, match="no C\\+\\+ compiler for aarch64") as caught:
        build_bundle("aarch64")
    assert "apt-get install g++-aarch64-linux-gnu" in caught.value.remedy
    assert "pip install ziglang" in caught.value.remedy
    assert "--bundle" in caught.value.remedy


@pytest.mark.ci
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo error: no C++17 >&2; exit 1", r"(?s)could not be compiled with .*error: no C\+\+17"),
        ("exit 0", "does not find ld-linux-"),
    ],
)
def test_a_failing_compiler_leaves_nothing(script, message, host_bundle, tmp_path, monkeypatch):
    """The downloads are those of another fixture."""
    cache = tmp_path / "cache"
    (cache / "runner").mkdir(parents=True)
    (cache / "runner" / "downloads").symlink_to(host_bundle / "runner" / "downloads")
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(cache))
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    with pytest.raises(RuntimeFailedError, match=message):
        build_bundle(platform.machine(), compiler=str(compiler))
    assert [path.name for path in (cache / "runner").iterdir()] == ["downloads"]


@pytest.mark.ci
def test_the_command_writes_a_bundle_of_at_most_20_mb(arm64_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(arm64_bundle))
    out = tmp_path / "runner.tar.gz"
    assert _run(["device", "bundle", "--out", str(out)]) == 0
    assert 10e6 < out.stat().st_size < 20e6
    assert f"the native runner {runner_key()} for aarch64" in capsys.readouterr().err
    with tarfile.open(out) as tar:
        assert {"runner", "executorch.so", "libonnxruntime.so.1", SUMS} < set(tar.getnames())


@pytest.mark.ci
def test_the_next_command_after_a_setup_runs_the_native_runner(native, int8_onnx, capsys):
    """A command that is no QEMU would start Python by default."""
    assert _run(["device", "setup", native]) == 0
    next_command = capsys.readouterr().err.rpartition("Next: mobiledeploy ")[2]
    assert next_command == f"bench ARTIFACT --device {native} --runner native\n"
    words = [str(int8_onnx) if word == "ARTIFACT" else word for word in next_command.split()]
    assert _run([*words, "--runs", "2"]) == 0


@pytest.mark.ci
def test_the_runner_does_not_depend_on_where_it_was_compiled(host_bundle):
    """The same sources give the same bundle, byte for byte."""
    [bundle] = (host_bundle / "runner").glob(f"{platform.machine()}-{runner_key()}")
    programs = [path.read_bytes() for path in bundle.iterdir() if "runner" in path.name]
    assert any(b"./include/nlohmann/json.hpp" in content for content in programs)
    assert not any(bytes(host_bundle) in content for content in programs)
