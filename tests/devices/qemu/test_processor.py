"""Which processor QEMU emulates."""

import pytest

from mobiledeploy.cli import _run
from mobiledeploy.devices.qemu import processor

PRINTS = "#!/bin/sh\necho 'qemu-aarch64 version {version} (Debian)'\n"


@pytest.fixture
def qemu(tmp_path):
    """Return a function that writes a program that prints a version of QEMU."""

    def write(version):
        path = tmp_path / "qemu-aarch64"
        path.write_text(PRINTS.format(version=version))
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("options", "safe"),
    [
        ("", "-cpu max,sme=off"),
        ("-cpu max", "-cpu max,sme=off"),
        ("-L root -cpu max root/python", "-L root -cpu max,sme=off root/python"),
        ("-cpu max,sve=off", "-cpu max,sve=off,sme=off"),
        ("-strace -L root python -cpu max", "-cpu max,sme=off -strace -L root python -cpu max"),
    ],
)
def test_sme_is_turned_off_where_qemu_computes_it_wrongly(options, safe, qemu):
    program = qemu("7.2.22")
    argv, note = processor.with_safe_processor([program, *options.split()])
    assert argv == [program, *safe.split()]
    assert "computes wrong results with SME" in note


@pytest.mark.parametrize(
    ("options", "version"),
    [
        ("-cpu max", "10.0.2"),
        ("-cpu max", "7.1.0"),
        ("-cpu cortex-a76", "7.2.22"),
        ("-cpu max,sme=off", "7.2.22"),
        ("-cpu max,sme=on", "7.2.22"),
        ("-cpu max", "unknown"),
    ],
)
def test_other_processors_and_versions_are_left_alone(options, version, qemu):
    argv = [qemu(version), *options.split()]
    assert processor.with_safe_processor(argv) == (argv, "")


def test_the_processor_of_the_environment_is_made_safe_too(qemu, monkeypatch):
    monkeypatch.setenv("QEMU_CPU", "max")
    argv, _ = processor.with_safe_processor([qemu("8.2.1")])
    assert argv[1:] == ["-cpu", "max,sme=off"]
    monkeypatch.setenv("QEMU_CPU", "cortex-a53")
    assert processor.with_safe_processor(argv[:1]) == (argv[:1], "")


def test_a_program_that_cannot_be_run_is_left_alone():
    argv = ["/nowhere/qemu-aarch64", "-cpu", "max"]
    assert processor.with_safe_processor(argv) == (argv, "")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("qemu-aarch64", False),
        ("qemu-aarch64 -cpu cortex-a76", False),
        ("qemu-aarch64 -strace -L root", False),
        ("qemu-aarch64 -L root python3", True),
        ("qemu-aarch64 -strace python3 -c x", True),
    ],
)
def test_a_command_that_names_no_program_is_told_from_one_that_does(command, names):
    argv = command.split()
    assert processor.is_qemu(argv)
    assert processor.names_program(argv) == names
    assert not processor.is_qemu(["docker", *argv])


@pytest.mark.parametrize(
    ("name", "part"), [("cortex-a53", "0xd03"), ("cortex-a76", "0xd0b"), ("max", "0xd0b")]
)
def test_the_emulated_processor_is_described(name, part, tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path))
    folder = processor.sysroot(["qemu-aarch64", "-cpu", f"{name},x=off"])
    text = (folder / "proc" / "cpuinfo").read_text()
    assert f"CPU part\t: {part}\n" in text
    assert f"Model\t: QEMU {name}\n" in text


def test_the_change_is_reported(qemu, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path))
    device = f"exec:{qemu('7.2.22')} -cpu max /no/python"
    assert _run(["device", "check", device]) == 4
    assert "so -cpu is max,sme=off, not max." in " ".join(capsys.readouterr().err.split())
