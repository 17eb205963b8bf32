"""The recipes' nets in plain PyTorch, written from their papers: peers of gormley_vision/models for gan_recipes.py.

Images are [B, C, H, W]. tests/models/test_gan_parity.py copies this project's parameters into them, and finds the same
outputs and the same gradients of penalties. Initial weights are PyTorch's own, which change no step's time.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from gormley_vision.models.sizes import halvings

PIECES = 5  # of Goodfellow's maxout units
GROUP = 16  # channels of a group in R3GAN


def _labelled(noise: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Append one-hot labels to the noise if the game is conditional."""
    if not classes:
        return noise
    assert labels is not None
    return torch.cat([noise, functional.one_hot(labels, classes).to(noise.dtype)], 1)


class DenseGenerator(nn.Module):
    """Goodfellow et al. 2014: [B, Z] through two ReLU layers to images in [-1, 1]."""

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        ends = nn.Linear(latent, width), nn.Linear(width, math.prod(shape))
        self.body = nn.Sequential(ends[0], nn.ReLU(True), nn.Linear(width, width), nn.ReLU(True), ends[1])

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images."""
        return torch.tanh(self.body(noise) / 2).view(-1, *self.shape)


class MaxoutDiscriminator(nn.Module):
    """Goodfellow et al. 2014: two maxout layers with dropout, to logits [B]."""

    def __init__(self, shape: tuple[int, int, int], width: int, input_dropout: float, dropout: float) -> None:
        super().__init__()
        self.width, self.rates = width, (input_dropout, dropout)
        self.layer_1 = nn.Linear(math.prod(shape), width * PIECES)
        self.layer_2 = nn.Linear(width, width * PIECES)
        self.head = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x, rate = (images.flatten(1) + 1) / 2, self.rates[0]
        for layer in (self.layer_1, self.layer_2):
            x = layer(functional.dropout(x, rate, self.training))
            x, rate = x.view(-1, self.width, PIECES).max(2).values, self.rates[1]
        return self.head(functional.dropout(x, rate, self.training))[:, 0]


class DCGANGenerator(nn.Module):
    """Radford et al. 2015, as in pytorch/examples; its first layer, a convolution of a 1x1 map, is a linear one."""

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.base, doublings = halvings(shape[1])
        features = width * 2 ** (doublings - 1)
        self.enter = nn.Linear(latent + classes, features * self.base**2, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(features), nn.ReLU(True)]
        for _ in range(doublings - 1):
            features //= 2
            layers += [nn.ConvTranspose2d(2 * features, features, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(features), nn.ReLU(True)]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(width, shape[0], 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images."""
        x = self.enter(_labelled(noise, labels, self.classes))
        return self.body(x.view(len(x), -1, self.base, self.base))


class DCGANDiscriminator(nn.Module):
    """Radford et al. 2015; without norms its convolutions have biases. With `classes` also returns their logits."""

    def __init__(self, shape: tuple[int, int, int], width: int, norm: str, classes: int = 0) -> None:
        super().__init__()
        base, depth = halvings(shape[1])
        layers: list[nn.Module] = []
        for level in range(depth):
            features = width * 2**level
            inputs = shape[0] if level == 0 else features // 2
            layers += [nn.Conv2d(inputs, features, 4, 2, 1, bias=norm == "none")]
            layers += [nn.BatchNorm2d(features)] if level and norm == "batch" else []
            layers += [nn.LeakyReLU(0.2, True)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(features * base**2, 1, bias=False)
        self.classifier = nn.Linear(features * base**2, classes) if classes else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits [B], and those of the classes [B, Y]."""
        x = self.body(images)
        logits = self.head(x)[:, 0]
        return logits if self.classifier is None else (logits, self.classifier(x))


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class ResNetUp(nn.Module):
    """A block of WGAN-GP's and SNGAN's generator; the shortcut's 1x1 convolution comes first, which costs a quarter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1)
        self.norm_2, self.conv_2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Double the map."""
        y = self.conv_1(_doubled(functional.relu(self.norm_1(x))))
        return self.conv_2(functional.relu(self.norm_2(y))) + _doubled(self.shortcut(x))


class ResNetGenerator(nn.Module):
    """Gulrajani et al. 2017, Miyato et al. 2018, at 32 pixels: every map has `width` channels."""

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(latent, 16 * width)
        self.blocks = nn.Sequential(*(ResNetUp(width) for _ in range(int(math.log2(shape[1] // 4)))))
        self.norm, self.to_image = nn.BatchNorm2d(width), nn.Conv2d(width, shape[0], 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images."""
        x = self.blocks(self.enter(noise).view(len(noise), -1, 4, 4))
        return torch.tanh(self.to_image(functional.relu(self.norm(x))))


class ResNetDown(nn.Module):
    """A block of their discriminator: the `first` starts without a ReLU; a `shrinking` one halves the map."""

    def __init__(self, inputs: int, width: int, first: bool, shrinking: bool) -> None:
        super().__init__()
        self.first = first
        self.conv_1, self.conv_2 = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, width, 1) if shrinking else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.conv_2(functional.relu(self.conv_1(x if self.first else functional.relu(x))))
        if self.shortcut is None:
            return x + y
        if self.first:  # a 1x1 convolution and an average commute
            return functional.avg_pool2d(y, 2) + self.shortcut(functional.avg_pool2d(x, 2))
        return functional.avg_pool2d(y + self.shortcut(x), 2)


class ResNetDiscriminator(nn.Module):
    """Their discriminator at 32 pixels; SNGAN sums over pixels without a bias, WGAN-GP averages and has one."""

    def __init__(self, shape: tuple[int, int, int], width: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        blocks = [ResNetDown(shape[0], width, True, True)]
        blocks += [ResNetDown(width, width, False, True) for _ in range(int(math.log2(shape[1] // 16)))]
        self.blocks = nn.Sequential(*blocks, *(ResNetDown(width, width, False, False) for _ in range(2)))
        self.head = nn.Linear(width, 1, bias=pooling == "mean")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B]."""
        x = functional.relu(self.blocks(images))
        return self.head(x.sum((2, 3)) if self.pooling == "sum" else x.mean((2, 3)))[:, 0]


def _filter(total: float) -> Tensor:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(line, line)[None, None] / total


def upsampled(x: Tensor) -> Tensor:
    """Double [B, C, h, w] with the filter [1, 3, 3, 1] / 4 along each axis, zeros outside."""
    taps = _filter(16).expand(x.shape[1], 1, 4, 4)
    return functional.conv_transpose2d(x, taps, stride=2, padding=1, groups=x.shape[1])


def downsampled(x: Tensor) -> Tensor:
    """Halve [B, C, h, w] with the filter [1, 3, 3, 1] / 8 along each axis, zeros outside."""
    taps = _filter(64).expand(x.shape[1], 1, 4, 4)
    return functional.conv2d(x, taps, stride=2, padding=1, groups=x.shape[1])


class R3Block(nn.Module):
    """Huang et al. 2025: 1x1 to twice the channels, 3x3 in groups of 16, 1x1 back, which starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, 2 * width, 1)
        self.grouped = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width // GROUP)
        self.leave = nn.Conv2d(2 * width, width, 1, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's branch."""
        y = functional.leaky_relu(self.enter(x), 0.2)
        return x + self.leave(functional.leaky_relu(self.grouped(y), 0.2))


class R3Generator(nn.Module):
    """Huang et al. 2025, config E without labels: `depth` blocks for each size from 4 pixels."""

    def __init__(self, shape: tuple[int, int, int], latent: int, width: int, depth: int) -> None:
        super().__init__()
        stages = int(math.log2(shape[1] // 4)) + 1
        self.enter, self.basis = nn.Linear(latent, width, bias=False), nn.Parameter(torch.randn(width, 4, 4))
        self.stages = nn.ModuleList(nn.Sequential(*(R3Block(width) for _ in range(depth))) for _ in range(stages))
        self.to_image = nn.Conv2d(width, shape[0], 1, bias=False)

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images."""
        x = self.enter(noise)[:, :, None, None] * self.basis
        for number, stage in enumerate(self.stages):
            x = stage(upsampled(x) if number else x)
        return self.to_image(x)


class R3Discriminator(nn.Module):
    """The same with sizes in reverse, to logits [B]."""

    def __init__(self, shape: tuple[int, int, int], width: int, depth: int) -> None:
        super().__init__()
        stages = int(math.log2(shape[1] // 4)) + 1
        self.from_image = nn.Conv2d(shape[0], width, 1, bias=False)
        self.stages = nn.ModuleList(nn.Sequential(*(R3Block(width) for _ in range(depth))) for _ in range(stages))
        self.basis, self.head = nn.Parameter(torch.randn(width, 4, 4) / 4), nn.Linear(width, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        x = self.from_image(images)
        for number, stage in enumerate(self.stages):
            x = stage(downsampled(x) if number else x)
        return self.head((x * self.basis).sum((2, 3)))[:, 0]


def turns(side: int, head_width: int, before: int) -> Tensor:
    """Return the rotations [N, Dh/2] of queries and keys as complex numbers: 2-D axial RoPE of base 100, x first.

    Heo et al. 2024 (arXiv:2403.13298). `before` tokens come before the patches and are not rotated.
    """
    frequencies = 100.0 ** (-4 * torch.arange(head_width // 4) / head_width)
    place = torch.arange(side, dtype=torch.float32)
    x, y = place.repeat(side), place.repeat_interleave(side)
    angles = torch.cat([x[:, None] * frequencies, y[:, None] * frequencies], 1)
    return functional.pad(torch.polar(torch.ones_like(angles), angles), (0, 0, before, 0), value=1.0)


class Layer(nn.Module):
    """A pre-norm layer of a ViT (Dosovitskiy et al. 2020) with rotated queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        qkv = self.qkv(self.norm_1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, K, N, Dh]
        rotated = torch.view_as_real(torch.view_as_complex(qkv[:2].unflatten(4, (-1, 2))) * turns).flatten(4)
        mixed = functional.scaled_dot_product_attention(rotated[0], rotated[1], qkv[2])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_2(x))


class ViTGenerator(nn.Module):
    """Noise makes every token by one linear map (Jiang et al. 2021), and after `depth` layers each makes a patch."""

    def __init__(
        self, shape: tuple[int, int, int], latent: int, width: int, depth: int, heads: int, patch: int
    ) -> None:
        super().__init__()
        self.shape, self.patch, self.side = shape, patch, shape[1] // patch
        self.tokens = nn.Linear(latent, self.side**2 * width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm, self.to_patches = nn.LayerNorm(width, 1e-6), nn.Linear(width, shape[0] * patch**2)
        self.register_buffer("turns", turns(self.side, width // heads, 0))

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images."""
        x = self.tokens(noise).view(len(noise), self.side**2, -1)
        for layer in self.layers:
            x = layer(x, self.turns)
        x = torch.tanh(self.to_patches(self.norm(x)))
        x = x.view(-1, self.side, self.side, self.patch, self.patch, self.shape[0])
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, *self.shape)


class ViTDiscriminator(nn.Module):
    """A ViT whose [CLS] makes the logit (Lee et al. 2021)."""

    def __init__(self, shape: tuple[int, int, int], width: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(shape[0], width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 1)
        self.register_buffer("turns", turns(shape[1] // patch, width // heads, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B]."""
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x, self.turns)
        return self.head(self.norm(x)[:, 0])[:, 0]
