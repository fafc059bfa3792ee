"""Make the golden outputs of transformers' MobileNets, from `golden_state`'s weights.

Run once, in an environment that has it (it is no dependency of this project or its tests):

    pip install transformers==5.23.0
    PYTHONPATH=tests python tests/weights/make_transformers_golden.py

Each file holds our specification, their key names and shapes (in order), and their logits in
float64 for images that `golden_images` makes.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from golden_state import golden_images, golden_state

SEED = 7
CLASSES = 10
IMAGES = (3, 3, 64, 64)
HERE = Path(__file__).parent / "golden"

NETWORKS = {
    "mobilenet_v1_0.5": ("v1", 0.5, "MobileNetV1"),
    "mobilenet_v2_0.35": ("v2", 0.35, "MobileNetV2"),
    "mobilenet_v2": ("v2", 1.0, "MobileNetV2"),
}


def main() -> None:
    """Write every golden file."""
    HERE.mkdir(exist_ok=True)
    for name, (family, width, prefix) in NETWORKS.items():
        config = getattr(transformers, f"{prefix}Config")(
            depth_multiplier=width, num_labels=CLASSES
        )
        model = getattr(transformers, f"{prefix}ForImageClassification")(config).double().eval()
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        model.load_state_dict(golden_state(shapes, SEED), strict=True)
        with torch.no_grad():
            logits = model(golden_images(SEED, IMAGES)).logits
        document = {
            "reference": f"transformers {version('transformers')}, torch {version('torch')}",
            "spec": {
                "family": family,
                "width": width,
                "architecture": {"norm_eps": 1e-3, "padding": "same"},
                "resolution": IMAGES[-1],
                "num_classes": CLASSES,
            },
            "seed": SEED,
            "images": IMAGES,
            "logits": logits.tolist(),
            "shapes": shapes,
        }
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
        (HERE / f"transformers-{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
