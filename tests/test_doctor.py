"""The doctor on machines that lack something, with real folders, processes and metadata."""

import json
import sys

import pytest

from mobiledeploy import doctor
from mobiledeploy.cli import _run
from mobiledeploy.devices.host import Host
from mobiledeploy.doctor import (
    check_cache,
    check_processor,
    check_program,
    check_python,
    check_versions,
    check_weights,
    import_failure,
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install the metadata of a distribution in front of the real one."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, version, *, requires=(), python=""):
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        lines += [f"Requires-Python: {python}"] if python else []
        (info / "METADATA").write_text("\n".join(lines) + "\n")

    return add


@pytest.fixture
def libraries(monkeypatch):
    """Make the doctor check only these libraries, given as name to import statement."""

    def use(**statements):
        monkeypatch.setattr(doctor, "LIBRARIES", statements)

    return use


@pytest.mark.ci
def test_this_machine_can_export():
    checks = doctor.examine()
    assert [c.name for c in checks if c.fatal] == []
    names = [c.name for c in checks]
    assert names[0] == "python"
    for name in ("torch", "torchao", "executorch", "onnx", "onnxruntime", "adb", "ssh", "qemu"):
        assert name in names


def test_an_unsupported_python_is_broken(install):
    install("mobiledeploy", "9", python=">=3.99")
    check = check_python()
    assert (check.state, check.fatal) == ("broken", True)
    assert "expected >=3.99" in check.found
    assert check.remedy


def test_a_supported_python_is_ok(install):
    install("mobiledeploy", "9", python=">=3.11")
    assert check_python().state == "ok"


def test_a_library_that_is_not_installed_is_missing(install, libraries):
    install("mobiledeploy", "9", requires=["no-such-library<2,>=1"])
    libraries(**{"no-such-library": "import json"})
    (check,) = doctor.check_libraries()
    assert (check.state, check.fatal) == ("missing", True)
    assert check.remedy == "pip install 'no-such-library<2,>=1'"


@pytest.mark.parametrize(
    ("version", "state"), [("1.5", "ok"), ("2.0", "broken"), ("1.5.dev3", "ok"), ("1.5+cpu", "ok")]
)
def test_a_library_of_a_wrong_version_is_broken(install, libraries, version, state):
    install("mobiledeploy", "9", requires=["tool>=1,<2", 'tool>=7; extra == "other"'])
    install("tool", version)
    libraries(tool="import json")
    (check,) = doctor.check_libraries()
    assert check.state == state
    assert check.found.startswith(version)
    assert check.fatal is (state == "broken")
    if check.fatal:
        assert check.remedy == "pip install 'tool<2,>=1'"


def test_a_library_that_cannot_be_imported_is_broken(install, libraries):
    install("tool", "1")
    libraries(tool="raise ImportError('libfoo.so: undefined symbol')")
    (check,) = doctor.check_libraries()
    assert (check.state, check.fatal) == ("broken", True)
    assert "1, but it cannot be imported: ImportError: libfoo.so: undefined symbol" in check.found
    assert check.remedy


def test_each_library_gets_the_result_of_its_own_import(install, libraries):
    install("good", "1")
    install("bad", "2")
    libraries(good="pass", bad="1/0")
    assert [(c.name, c.state) for c in doctor.check_libraries()] == [
        ("good", "ok"),
        ("bad", "broken"),
    ]


@pytest.mark.parametrize("name", ["pydantic", "scipy", "pillow", "safetensors", "matplotlib"])
def test_a_library_that_some_commands_need_is_checked(name, install, libraries):
    install("mobiledeploy", "9", requires=["typer"])
    libraries(**{name: doctor.LIBRARIES[name]})
    (check,) = doctor.check_libraries()
    assert (check.name, check.state) == (name, "ok")


def test_every_library_that_is_required_is_checked(install, libraries):
    libraries(tool="pass")
    install("mobiledeploy", "9", requires=["tool", "one<2", "two", 'three; extra == "other"'])
    for name in ("tool", "one", "two"):
        install(name, "1")
    (check,) = doctor.check_other_libraries()
    assert (check.state, check.found) == ("ok", "one 1, two 1")
    install("mobiledeploy", "10", requires=["tool", "one<1", "no-such-library", "two"])
    broken, missing = doctor.check_other_libraries()
    assert (broken.name, broken.state, broken.fatal) == ("one", "broken", True)
    assert (missing.name, missing.state, missing.fatal) == ("no-such-library", "missing", True)
    assert missing.remedy == "pip install 'no-such-library'"


@pytest.mark.parametrize(
    ("statement", "failure"),
    [
        ("import json", ""),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os.abort()", "the process exited with -6"),
        ("import sys; sys.exit(3)", "the process exited with 3"),
    ],
)
def test_a_failed_import_is_described(statement, failure):
    assert import_failure(statement) == failure


def test_an_import_that_hangs_is_stopped():
    assert (
        import_failure("import time; time.sleep(60)", timeout_s=0.5)
        == "did not finish within 0.5 s"
    )


def test_compatible_versions_are_ok():
    check = check_versions()
    assert check.state == "ok"
    assert "torch 2" in check.found
    assert "executorch 1" in check.found


def test_a_torch_that_executorch_does_not_accept_is_broken(install):
    install("executorch", "1.4.1", requires=["torch>=2.13.0a0", "numpy>=99"])
    install("torch", "2.12.0")
    check = check_versions()
    assert (check.state, check.fatal) == ("broken", True)
    assert check.found == "executorch needs torch>=2.13.0a0, found 2.12.0"


def test_a_missing_library_makes_the_versions_broken(monkeypatch):
    monkeypatch.setattr(doctor, "_RELEASED_TOGETHER", ("torch", "no-such-library"))
    check = check_versions()
    assert check.state == "broken"
    assert "no-such-library missing" in check.found


def host(architecture, features, model="A chip"):
    features = None if features is None else frozenset(features)
    return Host(architecture=architecture, model=model, cores=4, features=features)


@pytest.mark.parametrize(
    ("machine", "state", "text"),
    [
        (
            host("x86_64", {"avx2", "avx512", "vnni"}),
            "ok",
            "avx512, vnni. With VNNI, int8 logits",
        ),
        (host("x86_64", {"avx2"}), "ok", "session.x64quantprecision=1"),
        (host("AMD64", set()), "ok", "no int8 instructions"),
        (host("aarch64", {"dotprod"}), "ok", "dotprod. Int8 uses dot-product"),
        (host("arm64", {"i8mm"}), "ok", "Int8 uses dot-product"),
        (host("aarch64", set()), "ok", "Without dot-product instructions"),
        (host("x86_64", None), "ok", "unknown features"),
        (host("riscv64", set(), model=""), "ok", "unknown, riscv64, 4 cores"),
    ],
)
def test_the_int8_instructions_are_explained(machine, state, text):
    check = check_processor(machine)
    assert check.state == state
    assert text in check.found
    assert bool(check.remedy) is (state == "broken")
    assert not check.fatal


@pytest.mark.parametrize(
    ("name", "command"), [("adb", "adb"), ("ssh", "ssh"), ("qemu", "qemu-aarch64")]
)
def test_programs_are_found_on_the_path(name, command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    check = check_program(name)
    assert (check.state, check.fatal) == ("missing", False)
    assert check.remedy
    program = tmp_path / command
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    check = check_program(name)
    assert (check.state, check.found, check.remedy) == ("ok", str(program), "")


def test_a_cache_that_does_not_exist_yet_is_ok(tmp_path):
    place, disk = check_cache(tmp_path / "a" / "b")
    assert (place.state, place.found) == ("ok", str(tmp_path / "a" / "b"))
    assert disk.state == "ok"
    assert not (tmp_path / "a").exists()


def test_a_cache_inside_a_file_is_broken(tmp_path):
    (tmp_path / "file").write_text("")
    place, _ = check_cache(tmp_path / "file" / "weights")
    assert place.state == "broken"
    assert "MOBILEDEPLOY_CACHE" in place.remedy


def test_a_read_only_cache_is_broken(tmp_path, monkeypatch):
    # root may write anywhere, so the answer of the system is replaced
    monkeypatch.setattr(doctor.os, "access", lambda path, _: path != tmp_path)
    assert check_cache(tmp_path)[0].state == "broken"


@pytest.mark.parametrize(("free", "state"), [(0, "ok"), (1, "broken")])
def test_too_little_disk_is_broken(tmp_path, monkeypatch, free, state):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", usage.total * free)
    disk = check_cache(tmp_path)[1]
    assert (disk.state, disk.fatal) == (state, state == "broken")
    assert "GiB free" in disk.found


def test_weights_are_cached_or_can_be_downloaded(tmp_path):
    cached, absent = check_weights({"v2": tmp_path / "v2.pth", "v1": None})
    assert (cached.name, cached.state, cached.found) == ("weights v2", "ok", "v2.pth")
    assert (absent.state, absent.fatal) == ("missing", False)
    assert "mobiledeploy export v1" in absent.remedy


@pytest.fixture
def quick(monkeypatch, libraries, tmp_path):
    """A doctor that imports nothing heavy, with a cache of its own."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    libraries(numpy="pass")


@pytest.mark.usefixtures("quick")
def test_the_command_prints_its_checks_to_stdout(tmp_path, capsys):
    assert _run(["doctor"]) == 0
    captured = capsys.readouterr()
    assert "weights" not in captured.err
    for text in ("ok      python", "numpy", "missing weights v2", str(tmp_path / "cache")):
        assert text in captured.out


@pytest.mark.usefixtures("quick")
def test_the_command_prints_one_document(capsys):
    assert _run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["kind"]) == (1, "mobiledeploy.doctor")
    assert document["healthy"] is True
    check = next(check for check in document["checks"] if check["name"] == "python")
    assert set(check) == {"name", "state", "found", "remedy", "required"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_command_exits_with_4_if_exporting_is_impossible(libraries, flags, capsys):
    libraries(numpy="1/0")
    assert _run(["doctor", *flags]) == 4
    captured = capsys.readouterr()
    assert "cannot work here because of numpy" in captured.err
    if flags:
        document = json.loads(captured.out)
        assert document["healthy"] is False
        # torch may be broken, so the package of the weights is not imported
        assert not [c for c in document["checks"] if c["name"].startswith("weights")]


def test_checking_imports_nothing_heavy():
    import subprocess

    script = (
        "import sys; from mobiledeploy import doctor\n"
        "doctor.check_python(); doctor.check_versions()\n"
        "print([m for m in ('torch', 'onnx', 'executorch', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
