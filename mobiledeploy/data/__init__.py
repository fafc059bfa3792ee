"""Images in: preprocessing, calibration sets, labels."""
