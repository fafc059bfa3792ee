"""The network that these tests export, and the stem of its artifacts' names."""

from pathlib import Path

CONFIG = Path(__file__).with_name("tiny.yml")
NETWORK = ("--config", CONFIG)
NAME = "mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random"
