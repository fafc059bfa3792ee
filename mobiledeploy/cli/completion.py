"""Shell completion of option values. Files and values of enumerations complete by themselves."""

from __future__ import annotations

from collections.abc import Iterator  # Typer evaluates the annotations of callbacks

_WEIGHTS = {
    "imagenet": "published ImageNet weights, downloaded once",
    "random": "for latency and size only",
}


def model_names(incomplete: str) -> Iterator[str]:
    """Yield the model names that begin with `incomplete`."""
    from mobiledeploy.models.spec import FAMILIES

    return (name for name in FAMILIES if name.startswith(incomplete))


def weights_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the named weights that begin with `incomplete`, each with a description.

    If there are none, the shell completes paths.
    """
    return ((name, text) for name, text in _WEIGHTS.items() if name.startswith(incomplete))
