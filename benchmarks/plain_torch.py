"""SimSiam in plain PyTorch, as its user would write it: what the benchmarks measure against.

The same layers, loss and optimizer as this package's, channels first. `tests/test_benchmarks.py`
gives both the same weights and sees the same losses.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
STEMS = {"imagenet": (7, 2), "cifar": (3, 1), "stride2": (3, 2)}
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def conv_norm(inputs, outputs, kernel, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.a = conv_norm(inputs, outputs, 3, stride)
        self.b = conv_norm(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x):
        y = self.b(F.relu(self.a(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    def __init__(self, depths, stem, width):
        super().__init__()
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1))
        self.stem = conv_norm(3, width, *STEMS[stem])
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        blocks, channels = [], width
        for i, depth in enumerate(depths):
            for j in range(depth):
                outputs = width * 2**i
                blocks.append(BasicBlock(channels, outputs, 2 if i > 0 and j == 0 else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.width = channels

    def forward(self, images):
        x = (images - self.mean) / self.std
        x = self.pool(F.relu(self.stem(x), inplace=True))
        return self.blocks(x).mean((2, 3))


def projector(inputs, d, layers, output_affine):
    rows = []
    for last in [False] * (layers - 1) + [True]:
        rows.append(nn.Linear(inputs, d, bias=False))
        rows.append(nn.BatchNorm1d(d, affine=output_affine or not last))
        rows += [] if last else [nn.ReLU(inplace=True)]
        inputs = d
    return nn.Sequential(*rows)


def predictor(d, hidden):
    return nn.Sequential(
        nn.Linear(d, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, d),
    )


class SimSiam(nn.Module):
    """The network that a `config.Pretrain` describes, for the encoders of `DEPTHS`."""

    def __init__(self, cfg):
        super().__init__()
        self.encoder = ResNet(DEPTHS[cfg.encoder], cfg.stem, cfg.width)
        self.projector = projector(
            self.encoder.width, cfg.output_dim, cfg.projector_layers, cfg.output_affine
        )
        self.predictor = predictor(cfg.output_dim, cfg.predictor_hidden)

    def forward(self, x1, x2):
        """Views, uint8 or float `[n, 3, h, w]`, to (loss, z_std)."""
        z1, z2 = self.projector(self.encoder(x1)), self.projector(self.encoder(x2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        z1, z2 = z1.detach(), z2.detach()
        loss = -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2
        return loss, math.sqrt(z1.shape[1]) * F.normalize(z1).std(0, unbiased=False).mean()


def sgd(model, cfg):
    """PyTorch's SGD at the peak rate that the configuration describes."""
    rate = cfg.base_lr * cfg.batch_size / 256
    return torch.optim.SGD(model.parameters(), rate, cfg.momentum, weight_decay=cfg.weight_decay)


def train_step(model, optimizer, x1, x2):
    """One optimizer step; returns (loss, z_std) as numbers, which waits for them."""
    optimizer.zero_grad()
    loss, z_std = model(x1, x2)
    loss.backward()
    optimizer.step()
    return loss.item(), z_std.item()
