"""A difference between two artifacts, made by hand; each part can be replaced."""

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.diff.types import (
    Difference,
    EncodingsDiff,
    FilesDiff,
    FloatComparison,
    InputComparison,
    MovedEncoding,
    OutputsDiff,
)
from mobiledeploy.stages import Encoding

SAME = InputComparison(name="network", a="mobilenet", b="mobilenet", changes=())
FILES = FilesDiff(
    same_bytes=False,
    formats=(Format.ONNX, Format.ONNX),
    a_bytes=1000,
    b_bytes=1200,
    operators=(),
    constants={"int8": (800, 1000), "float32": (8, 8)},
)
OTHER_FORMAT = FILES.model_copy(update={"formats": (Format.ONNX, Format.PTE)})
SAME_BYTES = FILES.model_copy(update={"same_bytes": True})
MOVED = MovedEncoding(
    name="add",
    layer="features.1",
    a=Encoding(scale=0.5, zero_point=-128),
    b=Encoding(scale=1.0, zero_point=-128),
)
ENCODINGS = EncodingsDiff(common=3, moved=(MOVED,), only_a=(), only_b=(), same_network=False)
EXACT = EncodingsDiff(common=3, moved=(), only_a=(), only_b=(), same_network=True)


def difference(**changes):
    fields = {
        "a": "a.onnx",
        "b": "b.onnx",
        "inputs": (SAME,),
        "encodings": ENCODINGS,
        "files": FILES,
        "a_at_export": None,
        "b_at_export": None,
    }
    return Difference(**(fields | changes))


def compared(sqnr_db, agreement, images=10):
    return FloatComparison(
        sqnr_db=sqnr_db, top1_agreement=agreement, images=images, source="photos"
    )


def outputs(**changes):
    fields = {
        "count": 10,
        "source": "photos",
        "metrics": {"differing_logits": 4.0, "logits": 100.0},
        "flips": (),
        "a_against_float": compared(20.0, 0.9),
        "b_against_float": compared(10.0, 0.8),
    }
    return OutputsDiff(**(fields | changes))
