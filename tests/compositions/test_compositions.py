"""Networks that people build around MobileNets: every format computes the reference's integers."""

from pathlib import Path

import networks
import numpy as np
import pytest

from mobiledeploy.export.write import export_executorch, export_onnx, export_tflite
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.parity.ladder import ACTIVATED
from mobiledeploy.pipeline.build import build
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.utils.outputs import activated

CODE = Path(__file__).parents[2] / "benchmarks" / "compositions" / "networks.py"
FORMATS = {"onnx": export_onnx, "pte": export_executorch, "tflite": export_tflite}
COMPOSITIONS = {
    "tutorial_v3": {"probabilities": ("classes", (10,))},
    "mlp_head": {"logits": ("classes", (5,))},
    "two_heads": {"age": ("regression", (1,)), "gender": ("classes", (2,))},
    "landmarks": {"logits": ("regression", (136,))},
    "embedding": {"embedding": ("embedding", (128,))},
    "ssdlite": {"scores": ("regression", (1170, 4)), "boxes": ("boxes", (1170, 4))},
    "lraspp": {"logits": ("map", (4, 64, 64))},
    "deeplab_v3": {"logits": ("map", (4, 64, 64))},
}

pytestmark = pytest.mark.ci


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_composition_is_exact_and_int8_in_all_formats(name, tmp_path):
    outputs = COMPOSITIONS[name]
    resolution = 96 if name == "ssdlite" else 64
    model = build(
        f"{CODE}:{name}",
        weights="random",
        resolution=resolution,
        arguments={"short": True},
        outputs=[f"{output}:{task}" for output, (task, _) in outputs.items()],
    )
    found = {each.name: (each.task, each.shape) for each in model.info.outputs}
    assert found == outputs
    calibration = networks.calibration(resolution)
    int8 = quantize(equalize(fold_graph(model), calibration), calibration)
    images = networks.pixels(resolution, count=3, seed=1)
    expected = IntegerReference(int8).run({"input": images})
    for format_, export in FORMATS.items():
        artifact = export(int8, tmp_path / f"net.{format_}")
        with open_runner(artifact.path) as runner:
            computed = runner.run({"input": images})
        assert list(computed) == list(expected)
        for output in model.info.outputs:
            values, found = expected[output.name], computed[output.name]
            assert len(np.unique(values, axis=0)) > 1
            if output.activation == "none":
                assert np.count_nonzero(found != values) == 0, (format_, output)
            else:
                bound = ACTIVATED["max_max_abs_difference"]
                assert np.abs(found - activated(values, (output,))).max() < bound, format_
        is_int8 = all(output.is_exact for output in model.info.outputs)
        assert artifact.coverage.elements_share >= (1 if is_int8 else 0.99), format_
