"""The oldest ONNX Runtime for the versions in a file."""

import pytest

from mobiledeploy.artifact.onnx_versions import oldest_onnxruntime


@pytest.mark.parametrize(
    ("opsets", "ir_version", "oldest"),
    [
        ({"": 14}, 7, "1.8"),
        ({"": 14}, 4, "1.8"),  # an older structure is no obstacle
        ({"": 14}, 8, None),  # 1.8 refuses the structure of 8
        ({"": 17}, 8, "1.12"),
        ({"": 13}, 7, None),  # not measured
        ({"": 14, "com.microsoft": 1}, 7, None),  # operators that old releases may not have
    ],
)
def test_only_measured_versions_name_a_release(opsets, ir_version, oldest):
    assert oldest_onnxruntime(opsets, ir_version) == oldest
