"""Quantize with the stock quantizers of ExecuTorch and ONNX Runtime, with their defaults."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.runner import Runner
from mobiledeploy.stages import CalibrationSet, FoldedModel
from mobiledeploy.utils.quiet import quietly

with quietly():  # they warn while they are imported
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def stock_executorch(model: FoldedModel, images: CalibrationSet) -> Runner:
    """Return a runner of what `write_stock_executorch` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stock.pte"
        write_stock_executorch(model, images, path)
        return open_runner(path, threads=2)


def write_stock_executorch(model: FoldedModel, images: CalibrationSet, path: Path) -> None:
    """Quantize as ExecuTorch's examples do: XNNPACKQuantizer, symmetric, per channel, min-max."""
    singly = torch.from_numpy(images.images).split(1)
    program = torch.export.export(model.module, (singly[0],))
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for image in singly:
            prepared(image)
    program = torch.export.export(convert_pt2e(prepared), (singly[0],))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def stock_onnxruntime(model: FoldedModel, images: CalibrationSet) -> Runner:
    """Return a runner of what `write_stock_onnxruntime` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stock.onnx"
        write_stock_onnxruntime(model, images, path)
        return open_runner(path, threads=2)


def write_stock_onnxruntime(model: FoldedModel, images: CalibrationSet, path: Path) -> None:
    """Quantize with `quantize_static`: QDQ, per channel, U8 activations, min-max."""
    example = torch.from_numpy(images.images[:1])
    with TemporaryDirectory() as folder:
        exported, prepared = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared"))
        names = {"input_names": ["input"], "output_names": ["logits"]}
        torch.onnx.export(
            model.module,
            (example,),
            exported,
            dynamo=True,
            external_data=False,
            verbose=False,
            **names,
        )
        quant_pre_process(str(exported), str(prepared))
        quantize_static(
            str(prepared),
            str(path),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


class _Images(CalibrationDataReader):
    """One image at a time."""

    def __init__(self, images: CalibrationSet) -> None:
        self._images = iter(images.images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"input": image[None]}
