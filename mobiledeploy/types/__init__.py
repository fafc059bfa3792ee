"""What flows through the pipeline: one frozen type per stage, each the next stage's input.

    ModelSpec ─build▶ FloatModel ─fold▶ FoldedModel ─quantize▶ QuantizedModel ─export▶ Artifact
                                     CalibrationSet ──┘                       ├─parity▶ ParityReport
                                                                              └─bench─▶ Measurement

torch appears in annotations only: importing this module costs nothing.
"""

from mobiledeploy.types.coverage import Coverage, FloatIsland, require_int8
from mobiledeploy.types.demand import FloatDemand
from mobiledeploy.types.difference import (
    Change,
    Difference,
    Duel,
    EncodingsDiff,
    FilesDiff,
    Flip,
    Loss,
    MovedEncoding,
    OperatorChange,
    OutputsDiff,
    Part,
    PartName,
    Reproduction,
)
from mobiledeploy.types.networks import (
    INPUT_NAME,
    OUTPUT_NAME,
    RECIPES,
    CalibrationSet,
    Encoding,
    FloatModel,
    FoldedModel,
    Interpolation,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
    WeightsProvenance,
    evenly_spread,
)
from mobiledeploy.types.parity import (
    Compared,
    Comparison,
    DataUsed,
    Guess,
    ImageError,
    LayerError,
    ParityReport,
    Rung,
    RungName,
)
from mobiledeploy.types.results import (
    FORMATS,
    Artifact,
    Format,
    InstructionCount,
    Measurement,
    OutputCheck,
    Precision,
)
from mobiledeploy.types.sensitivity import LayerSensitivity, SensitivityReport
from mobiledeploy.types.spec import (
    FAMILIES,
    FAMILY_ALIASES,
    ArchitectureOptions,
    Family,
    ModelSpec,
    TableRow,
    family_named,
)

__all__ = [
    "FAMILIES",
    "FAMILY_ALIASES",
    "FORMATS",
    "INPUT_NAME",
    "OUTPUT_NAME",
    "RECIPES",
    "ArchitectureOptions",
    "Artifact",
    "CalibrationSet",
    "Change",
    "Compared",
    "Comparison",
    "Coverage",
    "DataUsed",
    "Difference",
    "Duel",
    "Encoding",
    "EncodingsDiff",
    "Family",
    "FilesDiff",
    "Flip",
    "FloatDemand",
    "FloatIsland",
    "FloatModel",
    "FoldedModel",
    "Format",
    "Guess",
    "ImageError",
    "InstructionCount",
    "Interpolation",
    "LayerError",
    "LayerSensitivity",
    "Loss",
    "Measurement",
    "ModelSpec",
    "MovedEncoding",
    "OperatorChange",
    "OutputCheck",
    "OutputsDiff",
    "ParityReport",
    "Part",
    "PartName",
    "Precision",
    "Preprocessing",
    "QuantRecipe",
    "QuantizedModel",
    "Reproduction",
    "Rung",
    "RungName",
    "SensitivityReport",
    "TableRow",
    "WeightsProvenance",
    "evenly_spread",
    "family_named",
    "require_int8",
]
