"""SimCLR trained in plain PyTorch with torchvision's augmentation: is it as good as the package's?

    python -m benchmarks.plain_training --data=FOLDER

Nothing of `simsiam_keras` is used. Network, loss, optimizer and schedule are those of

    python -m simsiam_keras pretrain --method=simclr --dataset=folder:FOLDER --recipe=cifar
        --encoder=resnet10 --stem=stride2 --width=16 --epochs=14 --batch_size=128 --base_lr=.2
        --projector_hidden=256 --output_dim=128 --temperature=.2 --knn_every=2 --augment=device

so that their losses and accuracies can stand beside each other, epoch by epoch. It needs torch and
torchvision, which no requirement of the package lists.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks import plain_torch

VIEW = transforms.Compose(
    [
        transforms.RandomResizedCrop(32, scale=(0.2, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        transforms.RandomGrayscale(0.2),
        transforms.PILToTensor(),
    ]
)


class Pairs(Dataset):
    """Two views of each picture, uint8 `[3, 32, 32]`."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return VIEW(self.pictures[i]), VIEW(self.pictures[i])


def read(folder):
    """The pictures of a folder of classes, and their labels."""
    found = ImageFolder(folder)
    pictures, labels = zip(*found, strict=True)
    return pictures, torch.tensor(labels)


def nt_xent(z1, z2, temperature):
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]))
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(2 * n).roll(n))


@torch.no_grad()
def features(encoder, pictures):
    to_tensor = transforms.PILToTensor()
    images = torch.stack([to_tensor(picture) for picture in pictures])
    return torch.cat([F.normalize(encoder(part.float())) for part in images.split(500)])


def knn(encoder, bank, queries, k=200, temperature=0.1):
    """Accuracy of the weighted vote of the k nearest."""
    encoder.eval()
    similarity = features(encoder, queries[0]) @ features(encoder, bank[0]).T
    encoder.train()
    nearest, places = similarity.topk(k)
    votes = torch.zeros(len(similarity), int(bank[1].max()) + 1)
    votes.scatter_add_(1, bank[1][places], (nearest / temperature).exp())
    return (votes.argmax(1) == queries[1]).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    train, test = (read(arguments.data / split) for split in ("train", "test"))
    encoder = plain_torch.ResNet(plain_torch.DEPTHS["resnet10"], "stride2", 16)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    projector = nn.Sequential(
        nn.Linear(encoder.width, 256, bias=False),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Linear(256, 128, bias=False),
        nn.BatchNorm1d(128, affine=False),
    )
    model = nn.Sequential(encoder, projector)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    batches = DataLoader(Pairs(train[0]), 128, shuffle=True, drop_last=True, num_workers=1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, arguments.epochs * len(batches)
    )
    print(f"epoch 0  kNN {100 * knn(encoder, train, test):.1f} %")
    for epoch in range(1, arguments.epochs + 1):
        losses = []
        for x1, x2 in batches:
            loss = nt_xent(model(x1.float()), model(x2.float()), 0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        line = f"epoch {epoch}  loss {sum(losses) / len(losses):.4f}"
        line += f"  kNN {100 * knn(encoder, train, test):.1f} %" if epoch % 2 == 0 else ""
        print(line, flush=True)


if __name__ == "__main__":
    main()
