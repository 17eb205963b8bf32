"""A recipe's whole training step in PyTorch eager, read from the same config: the peer of gan_recipes.py.

The nets are those of gan_peer_nets.py. The step does this project's work and no more: D's parameters are frozen in G's
update, only parameters' gradients are asked for, fakes of D's update have no graph, spectral normalisation iterates
once an update (`parametrize.cached`, and D in evaluation mode in G's update), and `torch.optim` and the average of
weights run over all tensors at once (their default, foreach). It lacks what this project adds: logged norms, and the
check that everything is finite.

Images and kernels have channels last: on one core of an AMD EPYC no recipe's step is slower by it, and those with
convolutions are up to a tenth faster. Attention in D's update runs in PyTorch's plain operations where there are
penalties: its fused kernel for CPUs has no gradient of a gradient.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from gan_peer_nets import (
    DCGANDiscriminator,
    DCGANGenerator,
    DenseGenerator,
    MaxoutDiscriminator,
    R3Discriminator,
    R3Generator,
    ResNetDiscriminator,
    ResNetGenerator,
    ViTDiscriminator,
    ViTGenerator,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

LENGTH, CLASSES = 4096, 10  # of the data set
# For each objective D's loss of (real, fake) logits, and G's of (fake, real).
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Any], Tensor]]] = {
    "non_saturating": (
        lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        lambda fake, _: softplus(-fake).mean(),
    ),
    "least_squares": (
        lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
        lambda fake, _: (fake - 1).square().mean() / 2,
    ),
    "wasserstein": (lambda real, fake: fake.mean() - real.mean(), lambda fake, _: -fake.mean()),
    "hinge": (
        lambda real, fake: functional.relu(1 - real).mean() + functional.relu(1 + fake).mean(),
        lambda fake, _: -fake.mean(),
    ),
    "relativistic_paired": (
        lambda real, fake: softplus(fake - real).mean(),
        lambda fake, real: softplus(real - fake).mean(),
    ),
}


def players(config: Any) -> tuple[nn.Module, nn.Module]:
    """Return the generator and the discriminator of a config whose players have the same architecture."""
    shape = (config.data.channels, config.data.image_size, config.data.image_size)
    g, d, latent = config.generator, config.discriminator, config.generator.latent_size
    classes = CLASSES if config.gan.conditional else 0
    match g.architecture:
        case "dense":
            rates = d.input_dropout, d.dropout
            return DenseGenerator(shape, latent, g.width), MaxoutDiscriminator(shape, d.width, *rates)
        case "dcgan":
            return (
                DCGANGenerator(shape, latent, g.width, classes),
                DCGANDiscriminator(shape, d.width, d.norm, classes),
            )
        case "resnet":
            return ResNetGenerator(shape, latent, g.width), ResNetDiscriminator(shape, d.width, d.pooling)
        case "r3gan":
            return R3Generator(shape, latent, g.width, g.depth), R3Discriminator(shape, d.width, d.depth)
    sizes = [(net.width, net.depth, net.heads, net.patch_size) for net in (g, d)]
    return ViTGenerator(shape, latent, *sizes[0]), ViTDiscriminator(shape, *sizes[1])


def optimizer(net: nn.Module, section: Any) -> torch.optim.Optimizer:
    """Return the update rule of a config's section."""
    match section.name:
        case "adam":
            return torch.optim.Adam(net.parameters(), section.learning_rate, (section.momentum, section.beta2))
        case "rmsprop":
            return torch.optim.RMSprop(net.parameters(), section.learning_rate, section.beta2)
    return torch.optim.SGD(net.parameters(), section.learning_rate, section.momentum)


def squared_norms(logits: Tensor, images: Tensor) -> Tensor:
    """Return the squared norm of each image's gradient, [B], which can be differentiated again."""
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.square().sum((1, 2, 3))


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Return WGAN-GP's mean (norm - 1)^2 at real + share * (fake - real), `share` [B, 1, 1, 1]."""
    between = torch.lerp(real, fake, share).requires_grad_()
    return ((squared_norms(judge(between), between) + 1e-12).sqrt() - 1).square().mean()


def _judged(discriminator: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    outputs = discriminator(images)
    return outputs if isinstance(outputs, tuple) else (outputs, None)


def discriminator_loss(gan: Any, discriminator: nn.Module, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
    """Return D's loss with its penalties; real and fake images go through D in passes of their own."""
    real.requires_grad_(bool(gan.r1))
    fake.requires_grad_(bool(gan.r2))
    (real_logits, real_classes), (fake_logits, fake_classes) = (_judged(discriminator, x) for x in (real, fake))
    loss = LOSSES[gan.objective][0](real_logits, fake_logits)
    if real_classes is not None and fake_classes is not None:
        errors = [functional.cross_entropy(x, labels) for x in (real_classes, fake_classes)]
        loss = loss + gan.classifier_weight * (errors[0] + gan.fake_classifier_weight * errors[1])
    if gan.r1:
        loss = loss + gan.r1 / 2 * squared_norms(real_logits, real).mean()
    if gan.r2:
        loss = loss + gan.r2 / 2 * squared_norms(fake_logits, fake).mean()
    if gan.gradient_penalty:
        share = torch.rand(len(real), 1, 1, 1)
        loss = loss + gan.gradient_penalty * gradient_penalty(discriminator, real, fake, share)
    return loss


def generator_loss(gan: Any, discriminator: nn.Module, fake: Tensor, labels: Tensor, real: Tensor | None) -> Tensor:
    """Return G's loss; a relativistic one also reads real images."""
    real_logits = None
    if real is not None:
        with torch.no_grad():
            real_logits, _ = _judged(discriminator, real)
    logits, classes = _judged(discriminator, fake)
    loss = LOSSES[gan.objective][1](logits, real_logits)
    if classes is None:
        return loss
    return loss + gan.generator_classifier_weight * functional.cross_entropy(classes, labels)


def _descend(net: nn.Module, rule: torch.optim.Optimizer, loss: Tensor) -> None:
    """Compute the gradients of a player's parameters, and of nothing else."""
    rule.zero_grad()
    loss.backward(inputs=list(net.parameters()))


def torch_step(config: Any) -> Callable[[], None]:
    """Return the step of a config."""
    gan = config.gan
    generator, discriminator = (net.to(memory_format=torch.channels_last) for net in players(config))
    spectral, relativistic = config.discriminator.spectral_norm, gan.objective.startswith("relativistic")
    if spectral:
        for layer in list(discriminator.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                parametrizations.spectral_norm(layer)
    g_rule = optimizer(generator, config.generator_optimizer)
    d_rule = optimizer(discriminator, config.discriminator_optimizer)
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    drawn, noise = _data(config), _noise(config)
    penalised = gan.r1 or gan.r2 or gan.gradient_penalty
    once = parametrize.cached if spectral else contextlib.nullcontext

    def update_discriminator(real: Tensor, fake: Tensor, labels: Tensor) -> None:
        discriminator.train()
        with once(), sdpa_kernel(SDPBackend.MATH) if penalised else contextlib.nullcontext():
            _descend(discriminator, d_rule, discriminator_loss(gan, discriminator, real, fake, labels))

    def update_generator(fake: Tensor, labels: Tensor, real: Tensor | None) -> None:
        discriminator.train(not spectral).requires_grad_(False)
        _descend(generator, g_rule, generator_loss(gan, discriminator, fake, labels, real))
        discriminator.requires_grad_(True)

    def step() -> None:
        for _ in range(gan.discriminator_steps):
            real, labels = drawn()
            with torch.set_grad_enabled(gan.simultaneous):
                fake = generator(noise(1), labels)
            update_discriminator(real, fake.detach(), labels)
            if not gan.simultaneous:
                d_rule.step()
                _clip(discriminator, gan.clip_weights)
        if not gan.simultaneous:
            fake = generator(noise(gan.generator_factor), labels.repeat_interleave(gan.generator_factor))
        update_generator(fake, labels, drawn()[0] if relativistic else None)
        if gan.simultaneous:
            d_rule.step()
        g_rule.step()
        average.update_parameters(generator)

    return step


def _data(config: Any) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that draws a minibatch: images in [-1, 1] [B, C, H, W], and labels [B]."""
    data, shape = config.data, (config.data.channels, config.data.image_size, config.data.image_size)
    images = torch.randint(0, 256, (LENGTH, *shape), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (LENGTH,))

    def drawn() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, LENGTH, (data.batch_size,))
        real = images[chosen].to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1
        if config.gan.dequantize:
            real += torch.rand_like(real) / 128
        if data.flip:
            real = torch.where(torch.rand(len(real), 1, 1, 1) < 0.5, real.flip(3), real)
        return real, labels[chosen]

    return drawn


def _noise(config: Any) -> Callable[[int], Tensor]:
    """Return a function that draws noise of variance 1 for so many minibatches of fakes."""

    def noise(factor: int) -> Tensor:
        shape = factor * config.data.batch_size, config.generator.latent_size
        if config.generator.latent == "normal":
            return torch.randn(shape)
        return (2 * torch.rand(shape) - 1) * math.sqrt(3)

    return noise


def _clip(net: nn.Module, bound: float) -> None:
    if bound:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.clamp_(-bound, bound)
