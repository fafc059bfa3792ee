"""Every dialect is recognised, uses all tensors, and gives the library's own outputs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from golden_state import golden_images, golden_state
from implementations import FlatV2, ListOfLayersV1, NamedLayersV1
from torch import nn

from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import Preprocessing

HERE = Path(__file__).parent
GOLDEN = sorted([*(HERE.parent / "models/golden").glob("*.json"), *HERE.glob("golden/*.json")])
HALF = (0.5, 0.5, 0.5)


def load(path: Path, *, options: ArchitectureOptions | None = None, double: bool = True):
    """Inspect, build and load, as the pipeline does."""
    info = inspect_checkpoint(path, create_on_meta, options)
    asked = ModelSpec(family=info.family, weights=str(path), resolution=64)
    spec = complete_spec(info, asked, {"family"})
    module = create(spec)
    module = module.double() if double else module
    return info, spec, module, load_weights(module, spec)


IN_ORDER = ("torchvision-mobilenet_v2", "timm-mobilenetv2_100", "timm-mobilenetv3_small_100")


def test_there_are_golden_outputs_of_every_library():
    libraries = {path.stem.split("-")[0] for path in GOLDEN}
    assert libraries == {"torchvision", "timm", "transformers"}


@pytest.mark.ci
@pytest.mark.parametrize(
    ("path", "alphabetical"),
    [
        *(pytest.param(path, True, id=f"{path.stem}, as safetensors sorts") for path in GOLDEN),
        *(pytest.param(path, False, id=path.stem) for path in GOLDEN if path.stem in IN_ORDER),
    ],
)
def test_libraries_are_recognised_and_give_their_own_outputs(path, alphabetical, tmp_path):
    golden = json.loads(path.read_text())
    package, name = path.stem.split("-", 1)
    expected = ModelSpec.from_document(golden["spec"])
    state = golden_state({key: tuple(shape) for key, shape in golden["shapes"].items()}, 7)
    if alphabetical:
        state = dict(sorted(state.items()))
    torch.save(state, tmp_path / f"{name}.pth")

    dilated = ArchitectureOptions(dilated=expected.architecture.dilated)  # not in the tensors
    info, spec, module, provenance = load(tmp_path / f"{name}.pth", options=dilated)

    assert info.dialect.split(",")[0] == package
    if name.startswith("tf_"):  # the golden file spells out what is V3's default
        assert expected.architecture.norm_eps == 1e-3
        expected = replace(expected, architecture=replace(expected.architecture, norm_eps=None))
    assert replace(spec, weights="imagenet") == expected
    assert f"{len(state)} of {len(state)} tensors" in provenance.notes[0]
    with torch.no_grad():
        logits = module(golden_images(golden["seed"], golden["images"]))
    reference = torch.tensor(golden["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits, reference, rtol=0, atol=1e-9)


def randomized(module: nn.Module) -> nn.Module:
    """Give a reference implementation different weights in every layer."""
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    module = module.double().eval()
    module.load_state_dict(golden_state(shapes, 7))
    return module


SINGLE_FILE = {
    "V1, list of layers": (
        lambda: ListOfLayersV1(0.5, 10),
        ModelSpec(
            family="v1",
            width=0.5,
            num_classes=10,
            architecture=ArchitectureOptions(activation="relu"),
        ),
    ),
    "V1, named layers": (
        lambda: NamedLayersV1(0.25, 12),
        ModelSpec(family="v1", width=0.25, num_classes=12),
    ),
    "V2, flat": (
        lambda: FlatV2((16, 8, 16, 16, 32, 48, 80, 160, 1280), 10),
        ModelSpec(family="v2", width=0.5, num_classes=10),
    ),
    "V2, flat, 0.35": (
        lambda: FlatV2((16, 8, 8, 16, 24, 32, 56, 112, 1280), 1001),
        ModelSpec(family="v2", width=0.35, num_classes=1001),
    ),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", SINGLE_FILE)
def test_single_file_mobilenets_are_paired_by_structure_and_give_their_own_outputs(
    name, suffix, tmp_path
):
    make, expected = SINGLE_FILE[name]
    reference = randomized(make())
    path = tmp_path / f"checkpoint.{suffix}"
    if suffix == "pth":
        torch.save({"net": reference.state_dict(), "acc": 91.2, "epoch": 7}, path)
    else:
        safetensors.torch.save_file(reference.state_dict(), path)

    info, spec, module, provenance = load(path)

    assert info.dialect == "sequential"
    assert replace(spec, weights="imagenet", resolution=224) == expected
    assert any("not show" in note for note in info.notes)
    assert any("tensors were loaded from" in note for note in provenance.notes)
    images = golden_images(7, (3, 3, 64, 64))
    with torch.no_grad():
        torch.testing.assert_close(module(images), reference(images), rtol=0, atol=1e-9)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeroed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that must not be loaded."""
    return {name: tensor * 0 for name, tensor in state.items()}


WRAPPED = {
    "DataParallel": lambda state: prefixed(state, "module."),
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 3},
    "torch.compile": lambda state: prefixed(state, "_orig_mod."),
    "torchvision's training": lambda state: {
        "model": zeroed(state),
        "model_ema": {"n_averaged": torch.tensor(9), **prefixed(state, "module.")},
    },
    "timm's training": lambda state: {
        "arch": "mobilenetv2_100",
        "state_dict": zeroed(state),
        "state_dict_ema": state,
    },
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_checkpoints_load_like_bare_ones(wrap, saved, small):
    spec, reference = small
    info, found, module, provenance = load(saved(wrap(reference.state_dict())), double=False)
    assert replace(found, weights=spec.weights, resolution=32) == spec
    assert info.dialect == provenance.dialect == "torchvision"
    for name, tensor in reference.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_half_precision_is_converted_with_a_note(saved, small):
    state = {k: v.half() if v.is_floating_point() else v for k, v in small[1].state_dict().items()}
    _, _, module, provenance = load(saved(state), double=False)
    assert module.features[0][0].weight.dtype == torch.float32
    assert any("converted from float16" in note for note in provenance.notes)


def test_bn_counters_may_be_missing_with_a_note(saved, small):
    """Checkpoints from before PyTorch 0.4.1 have none, and some tools leave them out."""
    state = {k: v for k, v in small[1].state_dict().items() if not k.endswith("tracked")}
    _, _, module, provenance = load(saved(state), double=False)
    assert any(
        "no num_batches_tracked for 52 BatchNorm layers" in note for note in provenance.notes
    )
    assert int(module.features[0][1].num_batches_tracked) == 0


# --- what tensors do not show --------------------------------------------------------------------


def timm_checkpoint(reference: str, path: Path) -> Path:
    """Write a checkpoint with timm's names."""
    golden = json.loads((HERE.parent / "models/golden" / f"timm-{reference}.json").read_text())
    state = golden_state({key: tuple(shape) for key, shape in golden["shapes"].items()}, 7)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("reference", "file", "expected"),
    [
        ("mobilenetv1_100", "net.pth", Preprocessing(mean=HALF, std=HALF, interpolation="bicubic")),
        (
            "mobilenetv1_125",
            "mobilenetv1_125.ra4_e3600_r224_in1k.pth",
            Preprocessing(mean=HALF, std=HALF, interpolation="bicubic", crop_pct=0.9),
        ),
        ("mobilenetv2_100", "mobilenetv2_100_ra.pth", Preprocessing(interpolation="bicubic")),
        ("mobilenetv3_small_100", "net.pth", Preprocessing(interpolation="bicubic")),
        (
            "mobilenetv3_large_100",
            "mobilenetv3_large_100.ra4_e3600_r224_in1k.pth",
            Preprocessing(mean=HALF, std=HALF, interpolation="bicubic", crop_pct=0.95),
        ),
        (
            "mobilenetv3_large_100",
            "mobilenetv3_large_100_1k_miil_78_0-66471c13.pth",
            Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        ),
        (
            "tf_mobilenetv3_large_100",
            "tf_mobilenetv3_large_100-427764d5.pth",
            Preprocessing(mean=HALF, std=HALF),
        ),
        (
            "mobilenetv4_conv_small",
            "mobilenetv4_conv_small.e2400_r224_in1k/model.safetensors",
            Preprocessing(interpolation="bicubic"),
        ),
        (
            "mobilenetv4_conv_small_050",
            "mobilenetv4_conv_small_050.e3000_r224_in1k.pth",
            Preprocessing(mean=HALF, std=HALF, interpolation="bicubic"),
        ),
        (
            "mobilenetv4_conv_medium",
            "mobilenetv4_conv_medium.e180_ad_r384_in12k.pth",
            Preprocessing(interpolation="bicubic", crop_pct=1.0),
        ),
        (
            "mobilenetv4_conv_large",
            "mobilenetv4_conv_large.e500_r256_in1k.pth",
            Preprocessing(interpolation="bicubic", crop_pct=0.95),
        ),
    ],
)
def test_preprocessing_follows_the_dialect_and_the_name(reference, file, expected, tmp_path):
    info = inspect_checkpoint(timm_checkpoint(reference, tmp_path / file), create_on_meta)
    assert info.preprocessing == expected
    assert any("preprocessing" in note for note in info.notes)


def test_v4_without_the_name_of_its_recipe_says_that_preprocessing_is_assumed(tmp_path):
    info = inspect_checkpoint(
        timm_checkpoint("mobilenetv4_conv_small", tmp_path / "net.pth"), create_on_meta
    )
    assert (info.family, info.width, info.dialect) == ("v4-conv-small", 1.0, "timm")
    assert info.preprocessing is None
    assert any("preprocessing is assumed" in note for note in info.notes)


def test_a_v4_hybrid_is_refused_by_its_attention_layer(tmp_path):
    path = timm_checkpoint("mobilenetv4_conv_medium", tmp_path / "net.pth")
    state = torch.load(path)
    state["blocks.2.8.attn.query.proj.weight"] = torch.zeros(256, 160, 1, 1)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"hybrid: blocks\.2\.8\.attn\.query\.proj"):
        inspect_checkpoint(path, create_on_meta)


def test_a_v4_with_anti_aliasing_is_refused_by_its_name(tmp_path):
    path = tmp_path / "mobilenetv4_conv_aa_medium.pth"
    with pytest.raises(WeightsError, match="anti-aliasing"):
        inspect_checkpoint(timm_checkpoint("mobilenetv4_conv_medium", path), create_on_meta)


def test_preprocessing_for_rgb_is_not_implied_for_grey(tmp_path):
    path = timm_checkpoint("mobilenetv3_small_100", tmp_path / "net.pth")
    state = torch.load(path)
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :1]
    torch.save(state, path)
    info = inspect_checkpoint(path, create_on_meta)
    assert info.in_channels == 1
    assert info.preprocessing is None


@pytest.mark.parametrize(
    ("file", "crop_pct"),
    [("mobilenet_v2-7ebf99e0.pth", 224 / 232), ("mobilenet_v2-b0353104.pth", None)],
)
def test_torchvisions_second_weights_have_a_larger_crop(file, crop_pct, saved):
    preprocessing = inspect_checkpoint(saved(name=file), create_on_meta).preprocessing
    assert (preprocessing and preprocessing.crop_pct) == crop_pct


@pytest.mark.parametrize(
    ("file", "padding", "eps"),
    [
        ("tf_mobilenetv3_small_075.pth", "same", 1e-3),
        ("mobilenetv3_small_075.pth", "symmetric", 1e-5),
    ],
)
def test_weights_ported_from_tensorflow_are_recognised_by_the_file_name(
    file, padding, eps, tmp_path
):
    """Their tensors are those of timm's own."""
    path = timm_checkpoint("mobilenetv3_small_075", tmp_path / file)
    _, spec, module, _ = load(path)
    assert spec.architecture.padding == padding
    assert {m.eps for m in module.modules() if isinstance(m, nn.BatchNorm2d)} == {eps}


def test_explicit_options_override_the_dialect(tmp_path):
    path = timm_checkpoint("mobilenetv3_small_100", tmp_path / "net.pth")
    said = ArchitectureOptions(padding="same", norm_eps=1e-3)
    _, spec, module, _ = load(path, options=said)
    assert spec.architecture == said
    assert module.features[0][1].eps == 1e-3


def test_the_epsilon_is_set_on_a_network_built_without_it(tmp_path):
    path = timm_checkpoint("mobilenetv3_small_100", tmp_path / "net.pth")
    spec = ModelSpec(family="v3-small", num_classes=10, weights=str(path))
    module = create(spec)
    assert module.features[0][1].eps == 1e-3
    provenance = load_weights(module, spec)
    assert module.features[0][1].eps == 1e-5
    assert any("epsilon was set to 1e-05" in note for note in provenance.notes)


# --- a hub's config.json -------------------------------------------------------------------------

CONFIG = {
    "architecture": "tf_mobilenetv3_small_075",
    "num_classes": 10,
    "label_names": [f"class {i}" for i in range(10)],
    "pretrained_cfg": {
        "tag": "in1k",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    },
}


def test_a_hubs_config_gives_preprocessing_and_labels(tmp_path):
    path = timm_checkpoint("mobilenetv3_small_075", tmp_path / "hub" / "model.safetensors")
    path.with_name("config.json").write_text(json.dumps(CONFIG))
    info = inspect_checkpoint(path, create_on_meta)
    assert info.preprocessing == Preprocessing(
        mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.9, interpolation="bicubic"
    )
    assert info.architecture.padding == "same"
    assert info.labels == tuple(f"class {i}" for i in range(10))


def test_a_config_that_is_not_timms_or_not_a_hubs_is_ignored(tmp_path):
    path = timm_checkpoint("mobilenetv3_small_075", tmp_path / "model.safetensors")
    path.with_name("config.json").write_text('{"lr": 0.1}')
    assert inspect_checkpoint(path, create_on_meta).architecture.padding == "symmetric"
    path.with_name("config.json").write_text(json.dumps(CONFIG))
    other = path.rename(tmp_path / "best.safetensors")
    assert inspect_checkpoint(other, create_on_meta).architecture.padding == "symmetric"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSONDecodeError"),
        ('{"architecture": "x", "pretrained_cfg": {}}', "KeyError"),
        (json.dumps({**CONFIG, "pretrained_cfg": {"mean": 3}}), "TypeError"),
        (
            json.dumps(CONFIG).replace("bicubic", "hamming"),
            "interpolation 'hamming'",
        ),
    ],
)
def test_a_config_that_is_damaged_is_refused(tmp_path, content, reason):
    path = timm_checkpoint("mobilenetv3_small_075", tmp_path / "model.safetensors")
    path.with_name("config.json").write_text(content)
    with pytest.raises(WeightsError, match=f"config.json, which describes .*{reason}"):
        inspect_checkpoint(path, create_on_meta)
