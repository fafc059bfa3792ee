"""Images in: preprocessing, calibration sets, labels."""

from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.data.doubts import doubts
from mobiledeploy.data.labels import load_labels
from mobiledeploy.data.preprocess import check_preprocessing, default_preprocessing, preprocess

__all__ = [
    "check_preprocessing",
    "default_preprocessing",
    "doubts",
    "embedded_calibration",
    "load_calibration",
    "load_labels",
    "preprocess",
]
