"""How two int8 networks quantize their activations: which ranges moved, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobiledeploy.diff.types import EncodingsDiff, MovedEncoding
from mobiledeploy.network import Encoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.artifact.manifest import Manifest


def compare_encodings(a: Manifest, b: Manifest) -> EncodingsDiff | None:
    """Compare the encodings of two manifests; None where neither network is int8."""
    if a.recipe is None and b.recipe is None:
        return None
    mine: Mapping[str, Any] = a.document.get("encodings", {})
    other: Mapping[str, Any] = b.document.get("encodings", {})
    common = [name for name in mine if name in other]
    moved = [_pair(name, mine[name], other[name]) for name in common]
    moved = [pair for pair in moved if pair.a != pair.b]
    digests = [side.document.get("encodings_sha256") for side in (a, b)]
    return EncodingsDiff(
        common=len(common),
        moved=tuple(sorted(moved, key=lambda pair: -pair.distance)),
        only_a=tuple(name for name in mine if name not in other),
        only_b=tuple(name for name in other if name not in mine),
        same_network=digests[0] == digests[1] and not moved and mine.keys() == other.keys(),
    )


def _pair(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> MovedEncoding:
    return MovedEncoding(
        name=name, layer=a.get("layer") or b.get("layer") or "", a=_encoding(a), b=_encoding(b)
    )


def _encoding(described: Mapping[str, Any]) -> Encoding:
    return Encoding(scale=described["scale"], zero_point=described["zero_point"])
