"""A U-Net in PyTorch with as many filters as ours, batch normalisation after each convolution, as
the data's author trains one.
"""

import torch
from torch import nn


def convolutions(inputs, outputs):
    """Twice a 3x3 convolution, batch normalisation and ReLU."""
    layers = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Input (n, 3, side, side), output logits (n, 1, side, side)."""

    def __init__(self, filters, depth=5):
        super().__init__()
        widths = [filters * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            convolutions(a, b) for a, b in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1]
        )
        self.join = nn.ModuleList(convolutions(2 * width, width) for width in widths[-2::-1])
        self.last = nn.Conv2d(filters, 1, 1)

    def forward(self, x):
        skips = []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.down[-1](x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([skips.pop(), up(x)], dim=1))
        return self.last(x)


class Trainer:
    """Adam on binary cross-entropy, channels last; bfloat16 autocast if the machine has it."""

    def __init__(self, filters, images, masks, bfloat16):
        self.bfloat16 = bfloat16
        self.network = UNet(filters).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters())
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).contiguous(
            memory_format=torch.channels_last
        )
        self.masks = torch.from_numpy(masks[:, None].astype("float32"))

    def epoch(self, batch):
        """One pass over the slices."""
        for part in torch.randperm(len(self.images)).split(batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                logits = self.network(self.images[part])
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), self.masks[part])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
