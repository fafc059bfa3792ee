"""What `deploy` checks its artifacts on, and what `build` needs to be told."""

from dataclasses import replace

import networks
import pytest

from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.pipeline import deploy as _deploy
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.deploy import _images_to_check_on, deploy


def test_images_to_check_on_are_spread_over_the_set():
    """They were the first: those of one class, where a folder has its images by class."""
    images = replace(networks.calibration(32, 96), names=tuple(map(str, range(96))))
    checked = _images_to_check_on(None, images)
    assert checked.names == tuple(map(str, range(0, 96, 3)))
    assert (checked.images == images.images[::3]).all()


@pytest.fixture(scope="module")
def of_two_channels():
    return build("v1", weights="random", width=0.25, resolution=32, num_classes=2, in_channels=2)


def test_a_float_network_that_no_photograph_fits_is_refused_before_it_is_exported(
    of_two_channels, tmp_path, monkeypatch
):
    monkeypatch.setattr(_deploy, "take_through_stages", None)
    with pytest.raises(DataError, match=r"cannot check the artifacts: .*2 channels") as error:
        deploy(of_two_channels, formats=["onnx"], calibration=None, out=tmp_path)
    assert "--no-parity" in error.value.remedy


def test_unchecked_it_is_exported(of_two_channels, tmp_path):
    done = deploy(of_two_channels, formats=["onnx"], calibration=None, out=tmp_path, parity=False)
    assert done.artifacts[0].path.is_file()


def test_an_empty_name_of_weights_is_no_folder():
    """As a script gives it whose variable is unset."""
    with pytest.raises(UsageError, match="their name is empty"):
        build("v2", weights="")
