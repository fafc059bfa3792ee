"""Compilers of the native runner: which one is taken, and what Zig is given."""

import hashlib
import json
import sys

import pytest
from debian_package import package

from mobiledeploy.devices.native import compilers, sources
from mobiledeploy.devices.native.compilers import Compiler, Zig, open_compiler
from mobiledeploy.devices.native.sources import DebianPackage
from mobiledeploy.errors import RuntimeFailedError, UsageError

ZIG = f"""#!{sys.executable}
import json, os, sys
with open("called.json", "w") as file:
    json.dump([sys.argv[1:], os.environ["ZIG_LOCAL_CACHE_DIR"]], file)
"""


@pytest.fixture(autouse=True)
def tools(tmp_path, monkeypatch):
    """A folder of programs, the only one."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda _: None)
    return folder


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """Small packages in place of Debian's."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    contents, found = {}, []
    for name in ("include/c++/12/vector", "lib/libc.so.6", "lib/libstdc++.so.6"):
        folder = "./usr/aarch64-linux-gnu/" + name.rpartition("/")[0] + "/"
        data = package({f"./usr/aarch64-linux-gnu/{name}": name.encode()})
        path = f"p/{len(found)}_all.deb"
        contents[path] = data
        digest = hashlib.sha256(data).hexdigest()
        found.append(DebianPackage(path=path, size_bytes=len(data), sha256=digest, folder=folder))

    def download(url, to, **_):
        to.write_bytes(contents[url.rpartition("/main/")[2]])

    monkeypatch.setattr(sources, "download", download)
    monkeypatch.setattr(compilers, "CROSS_HEADERS", found[0])
    monkeypatch.setattr(compilers, "CROSS_LIBRARIES", tuple(found[1:]))


def add(tools, name, text="#!/bin/sh\n"):
    (tools / name).write_text(text)
    (tools / name).chmod(0o755)


@pytest.mark.usefixtures("debian")
def test_zig_gets_gnus_headers_and_libraries(tools, tmp_path):
    add(tools, "zig", ZIG)
    work = tmp_path / "work"
    work.mkdir()
    zig = open_compiler("aarch64", "", work)
    assert isinstance(zig, Zig)
    zig.compile(["-O2", "a.cpp"])
    argv, cache = json.loads((work / "called.json").read_text())
    assert argv[:3] == ["c++", "-target", "aarch64-linux-gnu.2.36"]
    assert argv.index(f"-I{work}/c++") < argv.index("a.cpp") < argv.index("-nostdlib++")
    assert argv[-2:] == [f"{work}/libraries/libstdc++.so.6", f"{work}/libraries/libgcc_s.so.1"]
    assert cache == "zig-cache"  # in the folder of the sources, which is removed
    assert (work / "c++" / "vector").read_text() == "include/c++/12/vector"
    assert zig.library("libc.so.6").read_text() == "lib/libc.so.6"


@pytest.mark.usefixtures("debian")
@pytest.mark.parametrize("command", ["/opt/zig/zig", "python3 -m ziglang", "zig.exe"])
def test_zig_is_known_by_its_command(command, tmp_path):
    assert isinstance(open_compiler("aarch64", command, tmp_path), Zig)


def test_gcc_goes_before_zig(tools, tmp_path):
    add(tools, "zig")
    add(tools, "aarch64-linux-gnu-g++-12")
    assert type(open_compiler("aarch64", "", tmp_path)) is Compiler


def test_zig_builds_for_aarch64_only(tools, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    add(tools, "zig")
    with pytest.raises(UsageError, match="for aarch64 only, not for x86_64"):
        open_compiler("x86_64", "zig", tmp_path)
    with pytest.raises(RuntimeFailedError, match=r"no C\+\+ compiler for x86_64") as caught:
        open_compiler("x86_64", "", tmp_path)
    assert "zig" not in caught.value.remedy
