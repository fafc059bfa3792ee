"""The code that passes pixels: Python runs, C++ is compiled."""

import importlib.util
import subprocess
from importlib import resources
from pathlib import Path

import networks
import numpy as np
import pytest
from markdown_blocks import BLOCKS

from mobiledeploy.data.calibration import embedded_calibration
from mobiledeploy.data.pixels import artifact_inputs
from mobiledeploy.devices.native.sources import (
    ONNXRUNTIME_HEADERS,
    fetch_package,
    unpack_package,
)
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.onnxruntime import session_options
from mobiledeploy.utils.quiet import quietly


def code(language, header=""):
    """Return the code block of a language that contains a header."""
    (block,) = [
        b for b in BLOCKS if b.mark == "pixels" and b.language == language and header in b.text
    ]
    assert len(block.text.partition("\n\n")[2].splitlines()) <= 20  # without the includes
    return block.text


def compile_cpp(text, folder, *options):
    """Fail unless g++ accepts the code."""
    source = folder / "app.cpp"
    source.write_text(text)
    done = subprocess.run(
        ["g++", "-std=c++20", "-Wall", "-fsyntax-only", *options, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_python_gives_the_pixels_and_logits_of_parity(tmp_path):
    import onnxruntime

    with quietly():
        from mobiledeploy.export.write import export_onnx

    model = networks.quantized_for_pixels("v2")
    path = tmp_path / "network.onnx"
    export_onnx(model, path)
    images = embedded_calibration(model.info, 3)
    expected = artifact_inputs(images.images, model.info.input)
    names: dict = {}
    exec(code("python"), names)
    session = onnxruntime.InferenceSession(path, session_options(threads=1, optimize=True))
    folder = Path(str(resources.files("mobiledeploy.data") / "embedded"))
    for name, pixels in zip(images.names, expected, strict=True):
        found = names["pixels_of"](folder / name, 32)
        np.testing.assert_array_equal(found[0], pixels)
        logits = names["logits_of"](session, folder / name, 32)
        reference = IntegerReference(model).run({"input": pixels[None]})["logits"]
        np.testing.assert_array_equal(logits, reference)


def test_cpp_for_executorch_compiles(tmp_path):
    package = importlib.util.find_spec("executorch").submodule_search_locations[0]
    include = Path(package) / "include"
    if not (include / "executorch/extension/module/module.h").is_file():
        pytest.skip("ExecuTorch's wheel has these headers since 1.5")
    portable = include / "executorch/runtime/core/portable_type/c10"
    options = ("-DC10_USING_CUSTOM_GENERATED_MACROS", f"-I{include}", f"-I{portable}")
    compile_cpp(code("cpp", "executorch"), tmp_path, *options)


@pytest.mark.ci  # downloads the header, 85 kB
def test_cpp_for_onnx_runtime_compiles(tmp_path):
    try:
        package = fetch_package(ONNXRUNTIME_HEADERS)
    except RuntimeFailedError as error:
        pytest.skip(f"without the header: {error.message}")
    unpack_package(package, ONNXRUNTIME_HEADERS, tmp_path / "include")
    compile_cpp(code("cpp", "onnxruntime_c_api.h"), tmp_path, f"-I{tmp_path / 'include'}")
