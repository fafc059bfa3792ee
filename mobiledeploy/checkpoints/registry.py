"""Published checkpoints by name: `--weights timm/mobilenetv2_050.lamb_in1k`.

Input: a name of `registry.yml`. Output: the checkpoint in the cache. Invariant: a file has the
digits of its sha256 that the registry knows. A file of which none are known is trusted when it is
first used; its sha256 is kept beside it, and no other file is accepted later.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mobiledeploy.checkpoints.hub import URL_VARIABLE, Fetched, cache_folder
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.spec import Family
from mobiledeploy.network import Interpolation
from mobiledeploy.utils.download import FetchError, download
from mobiledeploy.utils.files import sha256_of, write_text, write_whole
from mobiledeploy.utils.json_model import JsonModel

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"(timm|torchvision)/[\w.]+")
_PIN = "sha256"  # the file beside the checkpoint that keeps its digest


class RegisteredCheckpoint(JsonModel):
    """One published checkpoint.

    Attributes:
        name: Publisher and name of the weights.
        family: The family of the network.
        url: Where the publisher offers it.
        sha256: The digits of its sha256 that are known, from the first on; empty for none.
        top1: The publisher's top-1 accuracy on ImageNet's validation set.
        resolution: Side of the images of that evaluation, in pixels.
        crop_pct: Their crop.
        interpolation: Their interpolation.
        mean: Their mean.
        std: Their standard deviation.
    """

    name: str
    family: Family
    url: str
    sha256: str = ""
    top1: float
    resolution: int
    crop_pct: float
    interpolation: Interpolation
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def path(self) -> Path:
        """Return the path in the cache, whether or not the file exists."""
        return cache_folder() / self.name / self.url.rpartition("/")[2]

    def config(self) -> dict[str, Any]:
        """Return the `config.json` that timm keeps beside the file."""
        architecture, _, tag = self.name.partition("/")[2].partition(".")
        return {
            "architecture": architecture,
            "num_classes": 1000,
            "pretrained_cfg": {
                "tag": tag,
                "input_size": [3, self.resolution, self.resolution],
                "crop_pct": self.crop_pct,
                "interpolation": self.interpolation,
                "mean": list(self.mean),
                "std": list(self.std),
            },
        }


@cache
def registry() -> Mapping[str, RegisteredCheckpoint]:
    """Return all published checkpoints by name."""
    text = resources.files("mobiledeploy.checkpoints").joinpath("registry.yml").read_text("utf-8")
    return {
        name: RegisteredCheckpoint.model_validate_json(json.dumps({"name": name} | fields))
        for name, fields in yaml.safe_load(text).items()
    }


def is_registered(weights: str) -> bool:
    """Return whether weights are given by a publisher's name rather than by a path."""
    return _NAME.fullmatch(weights) is not None and not Path(weights).exists()


def fetch_registered(name: str) -> Fetched:
    """Return a published checkpoint in the cache; download it if it is not there.

    Raises:
        UsageError: the registry has no such name.
        WeightsError: the file cannot be downloaded, or is not the expected one.
        RuntimeFailedError: the cache cannot be written.
    """
    checkpoint = _named(name)
    pin = checkpoint.path.with_name(_PIN)
    expected = pin.read_text("utf-8").strip() if pin.is_file() else checkpoint.sha256
    found = sha256_of(checkpoint.path) if checkpoint.path.is_file() else ""
    if not found or not found.startswith(expected):
        found = _download(checkpoint, expected)
    if not pin.is_file():
        write_text(pin, found + "\n")
    if checkpoint.name.startswith("timm/"):
        write_text(checkpoint.path.with_name("config.json"), json.dumps(checkpoint.config()) + "\n")
    notes = [f"The weights are {name}, published with a top-1 of {checkpoint.top1:.4f}."]
    if len(checkpoint.sha256) < len(found):
        notes.append(
            f"The publisher gives no full sha256: {found[:12]}... was recorded on first use, and"
            " later downloads have to match it."
        )
    return Fetched(checkpoint.path, tuple(notes))


def _named(name: str) -> RegisteredCheckpoint:
    if name in registry():
        return registry()[name]
    close = difflib.get_close_matches(name, registry(), 3, 0.5)
    raise UsageError(
        f"No published checkpoint is called {name}.",
        remedy=f"Choose from {', '.join(close or registry())}; or pass the path of a checkpoint.",
    )


def _download(checkpoint: RegisteredCheckpoint, expected: str) -> str:
    """Download a checkpoint into the cache; return its sha256.

    Args:
        checkpoint: The checkpoint.
        expected: The first digits of its sha256, or all of them; empty if they are unknown.

    Raises:
        WeightsError: it cannot be downloaded, or is not the expected file.
    """
    mirror = os.environ.get(URL_VARIABLE)
    file = checkpoint.path.name
    url = f"{mirror.rstrip('/')}/{checkpoint.name}/{file}" if mirror else checkpoint.url
    remedy = (
        f"Put the file at {checkpoint.path}, give this machine access to {checkpoint.url}"
        f" (${URL_VARIABLE} names a mirror), or pass a checkpoint of your own."
    )
    try:
        with write_whole(checkpoint.path) as part:
            download(url, part, size_bytes=None)
            found = sha256_of(part)
            _require_digits(found, expected, url)
    except FetchError as error:
        message = f"The weights {checkpoint.name} are not available: {error}."
        raise WeightsError(message, remedy=remedy) from error
    return found


def _require_digits(found: str, expected: str, url: str) -> None:
    if not found.startswith(expected):
        raise FetchError(
            f"{url} has the sha256 {found}, expected {expected}: the publisher's file has changed,"
            " or it was damaged on the way"
        )
