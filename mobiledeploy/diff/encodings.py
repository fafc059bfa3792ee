"""Compare how two int8 networks quantize their activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.diff.types import EncodingsDiff, MovedEncoding

if TYPE_CHECKING:
    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.artifact.manifest_schema import EncodingRecord


def compare_encodings(a: Manifest, b: Manifest) -> EncodingsDiff | None:
    """Compare the encodings of two manifests; None if both networks are float."""
    if a.recipe is None and b.recipe is None:
        return None
    common = [name for name in a.encodings if name in b.encodings]
    pairs = [_pair(name, a.encodings[name], b.encodings[name]) for name in common]
    moved = [pair for pair in pairs if pair.a != pair.b]
    only_a = tuple(name for name in a.encodings if name not in b.encodings)
    only_b = tuple(name for name in b.encodings if name not in a.encodings)
    return EncodingsDiff(
        common=len(common),
        moved=tuple(sorted(moved, key=lambda pair: -pair.distance)),
        only_a=only_a,
        only_b=only_b,
        same_network=a.encodings_sha256 == b.encodings_sha256 and not (moved or only_a or only_b),
    )


def _pair(name: str, a: EncodingRecord, b: EncodingRecord) -> MovedEncoding:
    return MovedEncoding(name=name, layer=a.layer or b.layer, a=a.encoding, b=b.encoding)
