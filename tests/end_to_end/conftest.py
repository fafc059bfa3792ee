"""One exported pair, made by the installed command, that all tests here share."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import NAME, NETWORK


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight smooth images in its subfolder `pictures`."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for number in range(8):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
        smooth.save(folder / "pictures" / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def export(mobiledeploy, workplace):
    """Export the int8 pair to a folder of `workplace`."""

    def run(out: str):
        return mobiledeploy(
            *("export", "v2", "--int8", *NETWORK, "--calib-data", "pictures"),
            *("--format", "pte", "--format", "onnx", "--out", out, "--json"),
            cwd=workplace,
        )

    return run


@pytest.fixture(scope="session")
def exported(export):
    """The command that exported the pair."""
    done = export("first")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def document(exported) -> dict:
    return json.loads(exported.stdout)


@pytest.fixture(scope="session")
def pair(exported, workplace: Path) -> tuple[Path, Path]:
    """The `.pte` and the `.onnx`. Tests must not change them."""
    assert exported.returncode == 0
    return workplace / "first" / f"{NAME}-int8.pte", workplace / "first" / f"{NAME}-int8.onnx"


@pytest.fixture
def copied(pair, tmp_path: Path):
    """A copy of the `.onnx` and its manifest, which a test may damage."""
    artifact = tmp_path / pair[1].name
    for suffix in ("", ".json"):
        source = pair[1].with_name(pair[1].name + suffix)
        artifact.with_name(artifact.name + suffix).write_bytes(source.read_bytes())
    return artifact


@pytest.fixture(scope="session")
def exported_trained(mobiledeploy, shared: Path, tmp_path_factory) -> tuple[Path, Path]:
    """A trained V1 as int8 `.onnx`, and labelled images that were not used for calibration."""
    folder = tmp_path_factory.mktemp("trained")
    cifar = shared / "data" / "cifar10"
    checkpoint = shared / "checkpoints" / "mobilenet_v1_0.5_cifar10.safetensors"
    done = mobiledeploy(
        *("export", "v1", "--int8", "--weights", checkpoint, "--resolution", 64, "--ptq", "fast"),
        *("--calib-data", cifar / "calib.npz", "--format", "onnx", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    artifact = folder / json.loads(done.stdout)["artifacts"][0]["path"]
    return artifact, cifar / "eval.npz"
