"""Published checkpoints by name: the registry's content, downloads, digests."""

import hashlib
import io
import re

import pytest
import torch

from mobiledeploy.checkpoints import registry as registered
from mobiledeploy.checkpoints.dialects import TIMM, TIMM_TF, implied_preprocessing
from mobiledeploy.checkpoints.published import PUBLISHED
from mobiledeploy.checkpoints.registry import (
    RegisteredCheckpoint,
    fetch_registered,
    is_registered,
    registry,
)
from mobiledeploy.checkpoints.resolve import resolve
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.build import create_on_meta
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import Preprocessing

NAME = "timm/mobilenetv2_025.test_in1k"
FILE = f"{NAME}/model.safetensors"


@pytest.fixture
def content(small):
    stream = io.BytesIO()
    torch.save(small[1].state_dict(), stream)
    return stream.getvalue()


@pytest.fixture
def offer(monkeypatch, server, content):
    """Let the registry hold one checkpoint, which the server offers."""

    def entry(**changes):
        server.files[FILE] = content
        fields = {
            "name": NAME,
            "family": "v2",
            "url": "https://publisher.example/model.safetensors",
            "top1": 0.5,
            "resolution": 64,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
        }
        checkpoint = RegisteredCheckpoint(**(fields | changes))
        monkeypatch.setattr(registered, "registry", lambda: {NAME: checkpoint})
        return checkpoint

    return entry


def test_all_families_and_the_published_widths_are_listed():
    assert len(registry()) == 29
    assert {checkpoint.family for checkpoint in registry().values()} == {
        *("v1", "v2", "v3-large", "v3-small", "v4-conv-small", "v4-conv-medium", "v4-conv-large")
    }
    names = " ".join(registry())
    for part in ("v1_125", "v2_050", "v2_140", "large_075", "small_050", "conv_small_050"):
        assert part in names
    for name, checkpoint in registry().items():
        assert is_registered(name)
        assert 0.5 < checkpoint.top1 < 0.85
        assert re.fullmatch("[0-9a-f]{64}|[0-9a-f]{8}|", checkpoint.sha256)
        assert checkpoint.url.startswith("https://")


def test_pinned_files_are_pinned_alike():
    by_url = {checkpoint.url: checkpoint for checkpoint in registry().values()}
    for published in PUBLISHED.values():
        assert by_url[published.url].sha256 == published.sha256


def test_a_checkpoint_is_downloaded_pinned_and_described(offer, server, cache, small, content):
    offer()
    spec = ModelSpec(family="v2", weights=NAME)
    found = resolve(spec, ("weights",), create_on_meta)
    path = cache / NAME / "model.safetensors"
    assert path.read_bytes() == content
    assert (found.spec.weights, found.spec.width) == (str(path), small[0].width)
    assert found.preprocessing.crop_pct == 0.9
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    digest = hashlib.sha256(content).hexdigest()
    assert path.with_name("sha256").read_text() == f"{digest}\n"
    published, pinned, *_ = found.notes
    assert published == f"The weights are {NAME}, published with a top-1 of 0.5000."
    assert f"{digest[:12]}... was recorded on first use" in pinned
    assert resolve(spec, ("weights",), create_on_meta) == found
    assert server.requests == [FILE]


def test_known_digits_are_checked(offer, content):
    digest = hashlib.sha256(content).hexdigest()
    offer(sha256=digest[:8])
    assert "was recorded on first use" in fetch_registered(NAME).notes[1]
    offer(sha256=digest)
    assert len(fetch_registered(NAME).notes) == 1


def test_a_file_with_other_digits_is_refused(offer, cache):
    offer(sha256="00000000")
    with pytest.raises(WeightsError, match="expected 00000000: the publisher's file has changed"):
        fetch_registered(NAME)
    assert not (cache / NAME / "model.safetensors").exists()
    assert not (cache / NAME / "sha256").exists()


def test_a_pinned_file_is_replaced_if_damaged_and_refused_if_it_changed(offer, server, content):
    path = offer().path
    fetch_registered(NAME)
    path.write_bytes(content[:-1])
    assert fetch_registered(NAME).path.read_bytes() == content
    path.unlink()
    server.files[FILE] = content + b"x"
    with pytest.raises(WeightsError, match="the publisher's file has changed"):
        fetch_registered(NAME)


def test_a_file_that_was_put_there_is_taken_and_pinned(offer, server, content):
    path = offer().path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert fetch_registered(NAME).path == path
    assert path.with_name("sha256").read_text().strip() == hashlib.sha256(content).hexdigest()
    assert server.requests == []


@pytest.mark.parametrize("behaviour", ["404", "cut", "without length"])
def test_a_failed_download_leaves_nothing(offer, server, cache, behaviour):
    offer()
    server.behaviour = behaviour
    with pytest.raises(WeightsError, match=f"The weights {NAME} are not available") as caught:
        fetch_registered(NAME)
    assert "Put the file at" in caught.value.remedy
    assert list((cache / NAME).glob("*")) == []


def test_a_wrong_name_is_answered_with_close_ones():
    with pytest.raises(UsageError, match="No published checkpoint is called") as caught:
        fetch_registered("timm/mobilenetv2_50")
    assert "timm/mobilenetv2_050.lamb_in1k" in caught.value.remedy


def test_a_path_is_no_name(tmp_path, monkeypatch):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "x.pth").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert not is_registered("timm/x.pth")
    assert not is_registered("runs/x.pth")
    assert is_registered("timm/x")


@pytest.mark.parametrize("name", registry())
def test_a_file_name_implies_the_same_preprocessing(name):
    """The digits in torchvision's file names and timm's full names say what a recipe was."""
    checkpoint = registry()[name]
    is_torchvision = name.startswith("torchvision/")
    pretrained = checkpoint.config()
    full = f"{pretrained['architecture']}.{pretrained['pretrained_cfg']['tag']}"
    dialect = TIMM_TF if "tf_" in name else TIMM
    implied = implied_preprocessing(
        dialect,
        checkpoint.family,
        checkpoint.path.name if is_torchvision else full,
        by_name=is_torchvision,
    )
    expected = Preprocessing(
        mean=checkpoint.mean,
        std=checkpoint.std,
        crop_pct=checkpoint.crop_pct,
        interpolation=checkpoint.interpolation,
    )
    assert expected == (implied or Preprocessing())
