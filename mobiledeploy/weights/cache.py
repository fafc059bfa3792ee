"""The folder where downloaded weights stay."""

from __future__ import annotations

from pathlib import Path

from mobiledeploy import files
from mobiledeploy.errors import UsageError
from mobiledeploy.files import sha256_of
from mobiledeploy.types import ModelSpec
from mobiledeploy.weights.published import Published, published_for


def cache_folder() -> Path:
    """Return the folder of weights within our cache."""
    return files.cache_folder() / "weights"


def cached_path(published: Published) -> Path:
    """Return where a file is or would be cached."""
    return cache_folder() / published.filename


def is_intact(path: Path, published: Published) -> bool:
    """Return whether `path` is a file with the pinned sha256."""
    return path.is_file() and sha256_of(path) == published.sha256


def cached(spec: ModelSpec) -> Path | None:
    """Return the cached ImageNet weights of a network; None if there are none, or they rotted."""
    try:
        published = published_for(spec)
    except UsageError:  # nobody publishes any: then none are at hand either
        return None
    path = cached_path(published)
    return path if is_intact(path, published) else None
