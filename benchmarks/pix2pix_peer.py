"""The steps of image_to_image_step.py in PyTorch eager, written from their descriptions and read from the same config.

pix2pix: U-Net and 70-pixel PatchGAN with instance norm (Isola et al. 2017, arXiv:1611.07004, appendix 6.1). The fakes
are computed once, for both players; D has no gradients in G's update, and in-place activations are the authors'. EDSR
(Lim et al. 2017, arXiv:1707.02921), added to bicubic interpolation. Both cut out, mirror and turn uint8 pictures as
the config says, and average weights if it does. What this project adds is left out: logged norms, the check that
everything is finite, and schedules of rates.

Images and kernels have channels last: EDSR's step takes 0.7 of the processor's time by it, and pix2pix's about the same
(measured on a busy machine).

tests/benchmarks/test_image_to_image_step.py copies this project's parameters into them, and finds the same losses.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, instance_norm, leaky_relu, pixel_shuffle, relu, softplus
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gormley_vision.layers.resampling import imresize

CHANNELS = 3


class Peer(NamedTuple):
    """The nets, and a step on an input and a target [B, C, H, W] in [-1, 1], which returns the losses."""

    generator: nn.Module
    discriminator: nn.Module | None
    step: Callable[[Tensor, Tensor], dict[str, Tensor]]


class UNet(nn.Module):
    """Images [B, C, H, W] in [-1, 1] to images alike."""

    def __init__(self, width: int, levels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        widths = [CHANNELS, *(width * min(2**level, 8) for level in range(levels))]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1] * (1 if i == levels - 1 else 2), widths[i], 4, 2, 1)
            for i in reversed(range(levels))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Translate images."""
        levels, maps = len(self.down), []
        for level, layer in enumerate(self.down):
            x = layer(leaky_relu(x, 0.2, True) if level else x)
            x = instance_norm(x) if 0 < level < levels - 1 else x
            maps.append(x)
        for level, layer in zip(reversed(range(1, levels)), self.up, strict=False):
            x = instance_norm(layer(relu(x, True)))
            if 4 <= level < levels - 1:
                x = dropout(x, self.dropout, self.training)
            x = torch.cat([maps[level - 1], x], 1)
        return torch.tanh(self.up[-1](relu(x, True)))


class PatchDiscriminator(nn.Module):
    """Inputs and images [B, 2 C, H, W] to logits [B, 1, h, w], each of 70 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [2 * CHANNELS, width, 2 * width, 4 * width, 8 * width, 1]
        strides = [2, 2, 2, 1, 1]
        sizes = zip(itertools.pairwise(widths), strides, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(*ends, 4, stride, 1) for ends, stride in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = leaky_relu(self.layers[0](x), 0.2, True)
        for layer in self.layers[1:-1]:
            x = leaky_relu(instance_norm(layer(x)), 0.2, True)
        return self.layers[-1](x)


class EDSR(nn.Module):
    """Images [B, C, h, w] to twice the size; the last layer starts at 0, so that the net is bicubic interpolation."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        widths = [CHANNELS, *[width] * (2 * blocks + 2), 4 * width]
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv2d(width, CHANNELS, 3, 1, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Enlarge images."""
        first = x = self.body[0](images)
        for i in range(1, len(self.body) - 2, 2):
            x = x + self.body[i + 1](relu(self.body[i](x), True))
        x = pixel_shuffle(self.body[-1](first + self.body[-2](x)), 2)
        return self.last(x) + resized(images, 2 * images.shape[-1])


@functools.cache
def _weights(side: int, size: int) -> Tensor:
    """Return MATLAB's bicubic weights [size, side]: each row of the unit matrix, resized."""
    return torch.from_numpy(np.array(imresize(jnp.eye(side)[None, ..., None], (size, side)))[0, ..., 0])


def resized(images: Tensor, size: int) -> Tensor:
    """Resize square images [B, C, H, W], as the step that is the peer does: a product for each side."""
    weights = _weights(images.shape[-1], size)
    return weights @ images @ weights.T


def halved(images: Tensor) -> Tensor:
    """Return images at half the size, in 8 bits."""
    small = ((resized(images, images.shape[-1] // 2) + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    return small.contiguous(memory_format=torch.channels_last)


def peer(config: Any) -> Peer:
    """Return the nets of a config, and their step."""
    options, net = config.translation, config.generator
    generator: nn.Module = EDSR(net.width, net.blocks)
    if net.architecture == "unet":
        generator = UNet(net.width, net.levels, net.dropout)
    generator.to(memory_format=torch.channels_last)
    discriminator = None
    if options.adversarial:
        discriminator = PatchDiscriminator(config.discriminator.width).to(memory_format=torch.channels_last)
    g_rule = _adam(generator, config.generator_optimizer)
    d_rule = _adam(discriminator, config.discriminator_optimizer) if discriminator else None
    average = None
    if not options.ema_half_life.startswith("0 "):
        average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(0.999))

    def judged(given: Tensor, images: Tensor) -> Tensor:
        assert discriminator is not None
        return discriminator(torch.cat([given, images], 1))

    def update_discriminator(given: Tensor, target: Tensor, fake: Tensor) -> Tensor:
        assert discriminator is not None
        assert d_rule is not None
        real_logits, fake_logits = judged(given, target), judged(given, fake)
        loss = options.discriminator_weight * (softplus(-real_logits).mean() + softplus(fake_logits).mean())
        _descend(discriminator, d_rule, loss)
        return loss

    def step(given: Tensor, target: Tensor) -> dict[str, Tensor]:
        fake, losses = generator(given), {}
        if discriminator is not None:
            losses["loss/discriminator"] = update_discriminator(given, target, fake.detach())
        losses["loss/l1"] = (fake - target).abs().mean()
        loss = options.l1 * losses["loss/l1"]
        if discriminator is not None:
            discriminator.requires_grad_(False)
            losses["loss/adversarial"] = softplus(-judged(given, fake)).mean()
            loss = loss + options.adversarial * losses["loss/adversarial"]
        _descend(generator, g_rule, loss)
        if discriminator is not None:
            discriminator.requires_grad_(True)
        if average is not None:
            average.update_parameters(generator)
        return losses

    return Peer(generator, discriminator, step)


def _adam(net: nn.Module, section: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), section.learning_rate, (section.momentum, section.beta2))


def _descend(net: nn.Module, rule: torch.optim.Optimizer, loss: Tensor) -> None:
    """Update a net's parameters by their gradients, and compute no others."""
    rule.zero_grad()
    loss.backward(inputs=list(net.parameters()))
    rule.step()


def torch_step(config: Any, pictures: dict[str, np.ndarray]) -> Callable[[], None]:
    """Return the step of a config on minibatches drawn from pictures, uint8 [N, H, W, C]."""
    made, held = peer(config), [torch.from_numpy(x).permute(0, 3, 1, 2) for x in pictures.values()]

    def run() -> None:
        made.step(*prepared(config, held))

    return run


def prepared(config: Any, held: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Draw a minibatch, move its pictures at random, those of a pair alike; and return inputs and targets."""
    count, size = config.data.batch_size, config.data.image_size
    side = config.translation.patch or size
    chosen = torch.randint(0, len(held[0]), (count,)).tolist()
    corners = torch.randint(0, size - side + 1, (count, 2)).tolist()
    mirrored = (torch.rand(count) < 0.5 * config.data.flip).tolist()
    turns = torch.randint(0, 4 if config.translation.turns else 1, (count,)).tolist()

    def moved(pictures: Tensor) -> Tensor:
        parts = []
        for i, (top, left), mirror, turn in zip(chosen, corners, mirrored, turns, strict=True):
            part = pictures[i, :, top : top + side, left : left + side]
            part = part.flip(2) if mirror else part
            parts.append(part.rot90(turn, (1, 2)) if turn else part)
        return torch.stack(parts).to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1

    images = [moved(pictures) for pictures in held]
    return (halved(images[0]), images[0]) if len(images) == 1 else (images[1], images[0])
