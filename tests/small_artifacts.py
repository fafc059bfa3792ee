"""Fixtures: small networks as the runtimes' own tools export them, each made once per session.

They do not come from our exporters, so that what is tested with them stands on its own.
"""

import json
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

RESOLUTION = 32
CLASSES = 10
METADATA = {"name": "small", "input": {"mean": [0.5, 0.25, 0.125]}}
LABELS = "tench\ngoldfish\nöre"


@pytest.fixture(scope="session")
def images():
    """Three inputs, (3, 3, 32, 32) float32."""
    return np.random.default_rng(0).normal(size=(3, 3, RESOLUTION, RESOLUTION)).astype(np.float32)


@pytest.fixture(scope="session")
def small_module():
    """Convolution, depthwise, residual add, pooling, classifier: what a MobileNet is made of."""
    import torch
    from torch import nn

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.project = nn.Conv2d(8, 8, 1)
            self.classifier = nn.Linear(8, CLASSES)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            x = x + self.project(torch.relu(self.depthwise(x)))
            # Without `keepdim` XNNPACK leaves the mean to the portable kernels: two delegates.
            return self.classifier(x.mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


@pytest.fixture(scope="session")
def exported(small_module):
    """The module as an ExportedProgram with a batch of one."""
    import torch

    return torch.export.export(small_module, (torch.zeros(1, 3, RESOLUTION, RESOLUTION),))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the artifacts lie; not to be written to by tests."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def float_pte(exported, folder):
    """Lowered to XNNPACK, with our metadata as a constant method."""
    import torch

    def encoded(data):
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    constants = {
        "mobiledeploy_metadata": encoded(json.dumps(METADATA).encode()),
        "mobiledeploy_labels": encoded(zlib.compress(LABELS.encode())),
    }
    return _lower(exported, folder / "float.pte", constants=constants)


@pytest.fixture(scope="session")
def portable_pte(exported, folder):
    """No delegate: every operator runs in ExecuTorch's portable kernels."""
    return _lower(exported, folder / "portable.pte", delegate=False)


@pytest.fixture(scope="session")
def int8_program(exported, images):
    """Quantized the way ExecuTorch's documentation shows."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer()
        quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(exported.module(), quantizer)
        prepared(torch.from_numpy(images[:1]))
        return torch.export.export(convert_pt2e(prepared), (torch.from_numpy(images[:1]),))


@pytest.fixture(scope="session")
def int8_pte(int8_program, folder):
    """The quantized program, lowered to XNNPACK."""
    return _lower(int8_program, folder / "int8.pte")


def _lower(program, path, *, delegate=True, constants=None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        lowered = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()] if delegate else None,
            constant_methods=constants,
        )
        path.write_bytes(lowered.to_executorch().buffer)
    return path


@pytest.fixture(scope="session")
def float_onnx(small_module, folder):
    """The same network, written node by node; symbolic batch; our metadata in `metadata_props`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {name: tensor.detach().numpy() for name, tensor in small_module.named_parameters()}
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs, [output], name=output, **attributes)

    nodes = [
        node("Conv", ["input", "stem.weight", "stem.bias"], "s", strides=[2, 2], **conv),
        node("Relu", ["s"], "sr"),
        node("Conv", ["sr", "depthwise.weight", "depthwise.bias"], "d", group=8, **conv),
        node("Relu", ["d"], "dr"),
        node("Conv", ["dr", "project.weight", "project.bias"], "p", kernel_shape=[1, 1]),
        node("Add", ["sr", "p"], "sum"),
        node("GlobalAveragePool", ["sum"], "pooled"),
        node("Flatten", ["pooled"], "flat"),
        node("Gemm", ["flat", "classifier.weight", "classifier.bias"], "logits", transB=1),
    ]
    shape = ["batch", 3, RESOLUTION, RESOLUTION]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(
        model,
        {"mobiledeploy.metadata": json.dumps(METADATA), "mobiledeploy.labels": LABELS},
    )
    onnx.checker.check_model(model, full_check=True)
    path = folder / "float.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def int8_onnx(float_onnx, images, folder):
    """Quantized by ONNX Runtime's own tool: QDQ, uint8 activations, per-channel weights."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):
        def __init__(self):
            self.batches = iter({"input": image[None]} for image in images)

        def get_next(self):
            return next(self.batches, None)

    path = folder / "int8.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            float_onnx,
            path,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return path


@pytest.fixture(scope="session")
def fixed_batch_onnx(float_onnx, folder):
    """The float network with its batch fixed to two, and without metadata."""
    import onnx

    model = onnx.load(float_onnx)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del model.metadata_props[:]
    path = folder / "fixed.onnx"
    onnx.save(model, path)
    return path
