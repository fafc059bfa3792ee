"""Networks of common tutorials, as users write them: not in the operators that the stages know."""

import torch
import torch.nn.functional as F
from torch import nn


class Convolution(nn.Module):
    """A convolution, then another module."""

    def __init__(self, after, *, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=bias)
        self.after = after

    def forward(self, x):
        return self.after(self.conv(x))


class HardSwish(nn.Module):
    """Hard-swish out of ReLU6."""

    def forward(self, x):
        return x * F.relu6(x + 3.0, inplace=True) / 6.0


class HardSigmoid(nn.Module):
    """Hard-sigmoid out of ReLU6."""

    def forward(self, x):
        return F.relu6(x + 3.0, inplace=True) / 6.0


class LinearSqueeze(nn.Module):
    """Squeeze-and-excitation with linear layers and views."""

    def __init__(self, channels):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4),
            nn.ReLU(inplace=True),
            nn.Linear(channels // 4, channels),
            HardSigmoid(),
        )

    def forward(self, x):
        n, c, _, _ = x.size()
        return x * self.fc(self.pool(x).view(n, c)).view(n, c, 1, 1).expand_as(x)


class Tutorial(nn.Module):
    """Squeeze-and-excitation in front of the activation and of a shortcut, and an MLP head."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), HardSwish())
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            LinearSqueeze(16),
            nn.ReLU(),
        )
        self.before = nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, 32, 1)
        self.after = HardSwish()
        self.head = nn.Sequential(
            nn.Linear(32, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64, classes),
        )

    def forward(self, x):
        x = self.stem(x)
        x = self.after(x + self.block(x))
        x = F.relu(self.conv(self.before(x)))
        return self.head(x.mean([2, 3]).view(x.size(0), -1))


class Gates(nn.Module):
    """Activations and gates where a tensor has several readers."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()
        )
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv(x)
        x = x + y + torch.relu(y)  # a ReLU whose input others read
        x = x * torch.sigmoid(self.gate(x)) + x
        x = x * F.hardsigmoid(x + y)
        return self.head(torch.sigmoid(x).mean([2, 3]))


class Pools(nn.Module):
    """Max and average pools of windows, behind linear and clamped tensors."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, stride=2, padding=1)  # of negative numbers too
        x = F.avg_pool2d(F.relu(self.convs[0](x)), 2)
        x = F.max_pool2d(F.relu6(self.convs[1](x)), 2) + F.avg_pool2d(x, 3, 2, 1)
        return self.head(self.convs[2](x).mean([2, 3]))


class Bounds(nn.Module):
    """Clamps of every kind, and a head that reads an image."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardtanh(-0.7, 0.9)
        )
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 2 * 2, classes))

    def forward(self, x):
        x = self.stem(x)
        bounds = ((0.0, 6.0), (0.0, 1.0), (-0.3, 0.5), (0.1, 0.6))
        for conv, (low, high) in zip(self.convs, bounds, strict=True):
            y = conv(x)
            x = y + y.clamp(low, high)  # a clamp whose input others read
        return self.head(F.adaptive_avg_pool2d(x, 2))


class Shuffled(nn.Module):
    """Concatenations, splits and shuffles, as in ShuffleNet, of tensors with every encoding."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16))
        self.left = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.right = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.focus = nn.Conv2d(12, 8, 1)
        self.mix = nn.Conv2d(48, 16, 1, groups=4)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        patches = torch.cat(
            [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1
        )
        y = F.relu(self.stem(x))
        left, right = y.chunk(2, dim=1)
        left, right = self.left(left), F.hardswish(self.right(right))
        y = torch.cat([left, right, torch.sigmoid(left), left * right, right], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = torch.cat([y, self.focus(patches)], dim=1)
        y = F.channel_shuffle(F.relu(self.mix(y)), 4)
        first, second = torch.split(y, [6, 10], 1)
        y = torch.cat((second, first), 1)
        return self.head(y.mean([2, 3]))


class Upsampled(nn.Module):
    """Upsampling of every kind, and a skip connection."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.pooled = nn.Conv2d(8, 4, 1)
        self.mix = nn.Conv2d(18, 8, 1)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.down(x)
        size = x.shape[-2:]
        everywhere = F.relu(self.pooled(y.mean((2, 3), keepdim=True)))
        x = torch.cat(
            [
                F.interpolate(y[:, :4], scale_factor=2),
                F.interpolate(y[:, 4:], size=size, mode="bilinear", align_corners=False),
                F.interpolate(everywhere, size=size, mode="bilinear", align_corners=False),
                everywhere.expand(-1, -1, *size),
                F.pixel_shuffle(y, 2),
            ],
            dim=1,
        )
        x = F.interpolate(x[:, :, 1:], scale_factor=(3, 1), mode="bilinear")
        return self.head(F.relu(self.mix(x)).mean([2, 3]))


class Arithmetic(nn.Module):
    """Constants, differences, and activations that are made of them."""

    def __init__(self, classes=5):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, -0.2, 0.3]).view(1, 3, 1, 1))
        self.norm = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.prelu = nn.PReLU(8, init=0.3)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = F.leaky_relu(self.stem(self.norm((x - self.mean) / 0.9)), 0.1)
        x = x + self.scale.view(-1, 1, 1) * torch.tanh(self.convs[0](x))
        x = self.prelu(self.convs[1](x)) - x
        gate = torch.sigmoid(self.convs[2](x))
        x = gate * x + (1 - gate) * 0.5
        return 2.0 * self.head(-x.mean([2, 3]) * 3 + 0.1) - 1


class Sine(nn.Module):
    """An operator that nothing knows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.odd = Odd()

    def forward(self, x):
        return self.odd(self.conv(x)).mean([2, 3])


class Odd(nn.Module):
    """The unknown operator."""

    def forward(self, x):
        return torch.sin(x)  # the line that the error names


class Heads(nn.Module):
    """Scores, a map, and one number."""

    def __init__(self, classes=7):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.places = nn.Conv2d(16, 5, 3, padding=1)
        self.kind = nn.Linear(16, classes)
        self.age = nn.Linear(16, 1)

    def forward(self, x):
        x = self.stem(x)
        pooled = x.mean([2, 3])
        return {"kind": self.kind(pooled), "places": self.places(x), "age": self.age(pooled)}
