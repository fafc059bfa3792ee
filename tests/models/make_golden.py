"""Make the golden outputs of torchvision and timm for `golden_state`'s weights.

Run once, in an environment that has both (they are no dependency of this project or its tests):

    pip install torchvision==0.28.0 timm==1.0.31
    PYTHONPATH=tests python tests/models/make_golden.py

Each file holds our specification, the reference's own key names and shapes (in order), and its
logits in float64 for images that `golden_images` makes.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from golden_state import golden_images, golden_state

SEED = 7
CLASSES = 10
IMAGES = (3, 3, 64, 64)
HERE = Path(__file__).parent / "golden"

# name: (our spec without resolution and classes, how the reference is called)
TORCHVISION = {
    "mobilenet_v2": ({"family": "v2"}, {}),
    "mobilenet_v2_0.35": ({"family": "v2", "width": 0.35}, {"width_mult": 0.35}),
    "mobilenet_v2_1.4": ({"family": "v2", "width": 1.4}, {"width_mult": 1.4}),
    "mobilenet_v3_large": ({"family": "v3-large"}, {}),
    "mobilenet_v3_large_0.75": ({"family": "v3-large", "width": 0.75}, {"width_mult": 0.75}),
    "mobilenet_v3_large_dilated_tail": (
        {"family": "v3-large", "architecture": {"dilated": True, "reduced_tail": True}},
        {"dilated": True, "reduced_tail": True},
    ),
    "mobilenet_v3_small": ({"family": "v3-small"}, {}),
    "mobilenet_v3_small_0.5_dilated_tail": (
        {
            "family": "v3-small",
            "width": 0.5,
            "architecture": {"dilated": True, "reduced_tail": True},
        },
        {"width_mult": 0.5, "dilated": True, "reduced_tail": True},
    ),
}
_TIMM = {"norm_eps": 1e-5}  # timm's own V3 have PyTorch's epsilon, not TensorFlow's
_SLIM = {"width_rule": "slim"}
_TF = {"padding": "same", "norm_eps": 1e-3}
TIMM = {
    "mobilenetv1_100": {"family": "v1"},
    "mobilenetv1_125": {"family": "v1", "width": 1.25},
    "mobilenetv2_035": {"family": "v2", "width": 0.35},
    "mobilenetv2_100": {"family": "v2"},
    "mobilenetv2_140": {"family": "v2", "width": 1.4},
    "mobilenetv3_large_075": {
        "family": "v3-large",
        "width": 0.75,
        "architecture": {**_SLIM, **_TIMM},
    },
    "mobilenetv3_large_100": {"family": "v3-large", "architecture": _TIMM},
    "mobilenetv3_small_050": {
        "family": "v3-small",
        "width": 0.5,
        "architecture": {**_SLIM, **_TIMM, "stem_width": 16},
    },
    "mobilenetv3_small_075": {
        "family": "v3-small",
        "width": 0.75,
        "architecture": {**_SLIM, **_TIMM},
    },
    "mobilenetv3_small_100": {"family": "v3-small", "architecture": _TIMM},
    "tf_mobilenetv3_large_100": {"family": "v3-large", "architecture": _TF},
    "tf_mobilenetv3_small_075": {
        "family": "v3-small",
        "width": 0.75,
        "architecture": {**_SLIM, **_TF},
    },
    "mobilenetv4_conv_small_050": {"family": "v4-conv-small", "width": 0.5},
    "mobilenetv4_conv_small": {"family": "v4-conv-small"},
    "mobilenetv4_conv_medium": {"family": "v4-conv-medium"},
    "mobilenetv4_conv_large": {"family": "v4-conv-large"},
}


def main() -> None:
    """Write every golden file."""
    _declare_missing_operators()
    import timm
    from torchvision.models.mobilenetv2 import MobileNetV2
    from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

    for name, (spec, options) in TORCHVISION.items():
        if spec["family"] == "v2":
            model = MobileNetV2(num_classes=CLASSES, **options)
        else:
            arch = "mobilenet_" + spec["family"].replace("-", "_")
            model = MobileNetV3(*_mobilenet_v3_conf(arch, **options), num_classes=CLASSES)
        _write("torchvision", name, spec, model)
    for name, spec in TIMM.items():
        _write("timm", name, spec, timm.create_model(name, num_classes=CLASSES))


def _declare_missing_operators() -> None:
    """Let torchvision's Python code load where its compiled operators do not fit this torch.

    The models use none of them.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    detection = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
    names = ("nms", "qnms", "qroi_align", "deform_conv2d", *detection)
    for name in (*names, *(f"_{name}_backward" for name in (*detection, "deform_conv2d"))):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor input) -> Tensor")
    globals()["_keep"] = library  # the declarations live as long as this object


def _write(package: str, name: str, spec: dict[str, object], model: torch.nn.Module) -> None:
    """Run the reference and store its outputs."""
    model = model.double().eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(golden_state(shapes, SEED), strict=True)
    with torch.no_grad():
        logits = model(golden_images(SEED, IMAGES))
    document = {
        "reference": f"{package} {version(package)}: {name}, torch {version('torch')}",
        "spec": {**spec, "resolution": IMAGES[-1], "num_classes": CLASSES},
        "seed": SEED,
        "images": IMAGES,
        "logits": logits.tolist(),
        "shapes": shapes,
    }
    path = HERE / f"{package}-{name}.json"
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: logits {logits.min():.3f} to {logits.max():.3f}")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
