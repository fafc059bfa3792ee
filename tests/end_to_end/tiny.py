"""The network that these tests export, and its artifacts' name."""

from pathlib import Path

CONFIG = Path(__file__).with_name("tiny.yml")
NETWORK = ("--config", CONFIG)
NAME = "mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random"
