"""The network that these tests export, and its artifacts' name."""

NETWORK = ("--weights", "random", "--width", 0.25, "--resolution", 32, "--num-classes", 10)
NAME = "mobilenet_v2_0.25_32-10classes-random"
