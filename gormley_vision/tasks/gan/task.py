"""Generative adversarial networks: the lecture's two-player game as one pure training step.

A step is a tuple of phases, run in order by a plain loop: k times the discriminator, each on a fresh
minibatch of m images and m fresh noise vectors, then the generator once, on fresh noise, against the new
discriminator. That is Algorithm 1 of Goodfellow et al. 2014 (arXiv:1406.2661) to the letter. A relativistic generator
reads real images, too: a minibatch of its own, which makes k + 1 in a step. Two options:

- `shared_fakes`: the generator reuses the noise of the last discriminator phase, as PyTorch's example does.
- `simultaneous`: the generator plays against the discriminator from before its last update, as in the code that
  Goodfellow et al. released.

k is unrolled: on the CPU, XLA runs convolutions inside a `lax.scan` on one thread without its fast path.

BatchNorm: real and fake images go through the discriminator in separate passes, each normalised by its own
statistics (Radford et al. 2015). A player's running statistics are updated only in its own phases, and by its
objective: penalties leave them as they are.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from gormley_vision.augmentation.geometry import flip_half
from gormley_vision.errors import UserError
from gormley_vision.losses.adversarial import Objective
from gormley_vision.losses.penalties import PENALTIES, Penalty
from gormley_vision.randomness import keyed_normal, named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.accumulation import run_in_microbatches
from gormley_vision.tasks.gan.sampling import interpolated, sampled
from gormley_vision.tasks.networks import (
    Network,
    Variables,
    apply_gradients,
    ema_decay,
    finite,
    moving_average,
    new_network,
    to_unit_range,
)

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class GANState:
    """All that training changes. `ema` holds the averaged generator's variables."""

    step: jax.Array
    generator: Network
    discriminator: Network
    ema: Variables


@dataclasses.dataclass(frozen=True)
class Phase:
    """One update of one player: which of the step's k minibatches and noises it uses."""

    player: str  # 'discriminator' or 'generator'
    minibatch: int
    noise: str  # name of the random stream
    meets_previous: bool = False  # use the opponent from before its last update


def step_phases(k: int, *, shared_fakes: bool, simultaneous: bool, relativistic: bool = False) -> tuple[Phase, ...]:
    """Return a training step as data: k discriminator updates, then one generator update."""
    updates = tuple(Phase("discriminator", i, "noise/discriminator") for i in range(k))
    noise = "noise/discriminator" if shared_fakes else "noise/generator"
    return (*updates, Phase("generator", k if relativistic else k - 1, noise, meets_previous=simultaneous))


@dataclasses.dataclass(frozen=True)
class GAN:
    """The task. `init`, `train_step` and `sample` are pure; build one with `gormley_vision.experiment`."""

    generator: nn.Module
    discriminator: nn.Module
    objective: Objective
    penalties: tuple[Penalty, ...]  # of the discriminator
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    latent_size: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]  # () if the game is unconditional
    batch_size: int
    minibatches: int  # k
    accumulate: int  # microbatches of a minibatch
    phases: tuple[Phase, ...]
    ema_half_life: float  # images
    ema_ramp: float
    flip: bool
    preview_count: int

    afterwards = "sample from it: python scripts/sample.py --workdir={workdir} --out=samples.png"

    @property
    def classes(self) -> int:
        """The number of classes that condition the game; 0 if it is unconditional."""
        return len(self.class_names)

    def init(self, key: jax.Array) -> GANState:
        """Return a fresh state, a function of the key only."""
        noise = jnp.zeros((2, self.latent_size))
        labels = jnp.zeros((2,), jnp.int32) if self.classes else None
        images = jnp.zeros((2, *self.image_shape))
        g = self.generator.init(named_key(key, "init/generator"), noise, labels, train=True)
        d = self.discriminator.init(named_key(key, "init/discriminator"), images, labels, train=True)
        g, d = ({"params": v["params"], "batch_stats": v.get("batch_stats", {})} for v in (g, d))
        return GANState(
            step=jnp.zeros((), jnp.int32),
            generator=new_network(g, self.generator_optimizer),
            discriminator=new_network(d, self.discriminator_optimizer),
            ema=jax.tree.map(jnp.copy, g),  # a copy: a donated buffer may appear only once
        )

    def train_step(self, state: GANState, batch: Batch, key: jax.Array) -> tuple[GANState, Metrics, Metrics]:
        """Run one iteration of Algorithm 1.

        Args:
            batch: 'image' uint8 [k, m, H, W, C] and 'label' int32 [k, m].
            key: the run's key; random draws also depend on `state.step`.

        Returns:
            The new state; scalars to log; and for each loss and gradient, in the order computed, whether
            it is finite.
        """
        metrics: Metrics = {}
        checks: Metrics = {}
        discriminators = [state.discriminator]
        generator = state.generator
        for phase in self.phases:
            draw = partial(named_key, key, step=state.step, index=phase.minibatch)
            labels = batch["label"][phase.minibatch] if self.classes else None
            noise = jax.random.normal(draw(phase.noise), (self.batch_size, self.latent_size))
            images = batch["image"][phase.minibatch]
            if phase.player == "discriminator":
                real = self._augmented(draw("flip"), images)
                player, gradients, logged = self.update_discriminator(
                    discriminators[-1], generator, real, noise, labels, key=draw("penalty"), step=state.step
                )
                discriminators.append(player)
            else:
                opponent = discriminators[-2 if phase.meets_previous else -1]
                met = self._augmented(draw("flip"), images) if self.objective.relativistic else None
                generator, gradients, logged = self.update_generator(generator, opponent, noise, labels, met)
            metrics |= logged
            prefix = f"{phase.player}[{phase.minibatch}]"
            checks |= finite(f"{prefix}/loss", logged[f"loss/{phase.player}"])
            checks |= finite(f"{prefix}/gradient", gradients)
        images_per_step = self.batch_size * self.minibatches
        images_seen = (state.step.astype(jnp.float32) + 1) * images_per_step
        decay = ema_decay(images_seen, images_per_step, self.ema_half_life, self.ema_ramp)
        ema = moving_average(state.ema, generator.variables, decay)
        return GANState(state.step + 1, generator, discriminators[-1], ema), metrics, checks

    def _augmented(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Convert uint8 images to float32 in [-1, 1], half of them mirrored if `flip`."""
        real = to_unit_range(images)
        return flip_half(key, real) if self.flip else real

    def update_discriminator(
        self,
        player: Network,
        generator: Network,
        real_images: jax.Array,
        noise: jax.Array,
        labels: jax.Array | None,
        *,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[Network, Any, Metrics]:
        """Descend the discriminator's loss and penalties once; the generator is fixed, running statistics included."""
        fake_images, _ = self._run(self.generator, generator.variables, noise, labels)

        def loss(params):
            variables = {**player.variables, "params": params}
            real_logits, batch_stats = self._run(self.discriminator, variables, real_images, labels)
            variables = {**variables, "batch_stats": batch_stats}
            fake_logits, batch_stats = self._run(self.discriminator, variables, fake_images, labels)
            critic = lambda images: self._run(self.discriminator, variables, images, labels)[0]  # noqa: E731
            penalties = self._penalties(critic, key, step, real_images, fake_images)
            value = self.objective.discriminator(real_logits, fake_logits)
            return value + sum(penalties.values()), (real_logits, fake_logits, batch_stats, penalties)

        (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(player.variables["params"])
        real_logits, fake_logits, batch_stats, penalties = aux
        shown = jax.nn.sigmoid if self.objective.probabilities else jnp.asarray
        logged = {
            "loss/discriminator": value,
            "discriminator/real": jnp.mean(shown(real_logits)),
            "discriminator/fake": jnp.mean(shown(fake_logits)),
            "gradient_norm/discriminator": optax.tree.norm(gradients),
            **penalties,
        }
        return (
            apply_gradients(player, gradients, batch_stats, self.discriminator_optimizer),
            gradients,
            logged,
        )

    def _penalties(
        self, critic: Callable, key: jax.Array, step: jax.Array, real: jax.Array, fake: jax.Array
    ) -> Metrics:
        """Return each penalty with its weight, 0 in steps that are not its turn."""
        found = {}
        for number, (kind, weight, interval) in enumerate(self.penalties):
            draw, strength = jax.random.fold_in(key, number), weight * interval

            def penalty(kind: str = kind, draw: jax.Array = draw, strength: float = strength) -> jax.Array:
                return strength * PENALTIES[kind](critic, draw, real, fake)

            turn = step % interval == 0
            found[f"penalty/{kind}"] = jax.lax.cond(turn, penalty, lambda: jnp.zeros(())) if interval > 1 else penalty()
        return found

    def update_generator(
        self,
        player: Network,
        discriminator: Network,
        noise: jax.Array,
        labels: jax.Array | None,
        real_images: jax.Array | None = None,
    ) -> tuple[Network, Any, Metrics]:
        """Descend the generator's loss once; the discriminator is fixed, running statistics included."""

        def loss(params):
            fake_images, batch_stats = self._run(self.generator, {**player.variables, "params": params}, noise, labels)
            fake_logits, _ = self._run(self.discriminator, discriminator.variables, fake_images, labels)
            return self.objective.generator(fake_logits, real_logits), batch_stats

        real_logits = None
        if real_images is not None:
            real_logits, _ = self._run(self.discriminator, discriminator.variables, real_images, labels)
        (value, batch_stats), gradients = jax.value_and_grad(loss, has_aux=True)(player.variables["params"])
        logged = {"loss/generator": value, "gradient_norm/generator": optax.tree.norm(gradients)}
        return apply_gradients(player, gradients, batch_stats, self.generator_optimizer), gradients, logged

    def _run(
        self, module: nn.Module, variables: Variables, inputs: jax.Array, labels: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """Apply a player in training mode. Returns its output and its updated running statistics."""
        if self.accumulate > 1:
            return run_in_microbatches(module, variables, inputs, labels, self.accumulate)
        outputs, updated = module.apply(variables, inputs, labels, train=True, mutable=["batch_stats"])
        return outputs, updated.get("batch_stats", {})

    def transfer(
        self, weights: dict[str, jax.Array], state: GANState, *, config: Any, class_names: tuple[str, ...]
    ) -> dict[str, jax.Array]:
        """Return another run's weights unchanged: both GANs must be alike.

        Raises:
            UserError: the other run is not a GAN's; or it is conditional on other classes, or in another order.
        """
        del state
        if not any(name.startswith("generator/") for name in weights):
            raise UserError(f"init_from is a {config['task']} run, and this needs a gan run: pass its folder")
        if self.class_names and class_names != self.class_names:
            raise UserError(
                f"init_from was conditioned on the classes {', '.join(class_names) or 'none'}; here they are "
                f"{', '.join(self.class_names)}: name them alike, or start fresh with --config.init_from=''"
            )
        return weights

    def generate(self, variables: Variables, noise: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Return images [B, H, W, C] in [-1, 1] from noise [B, Z], normalised by the running statistics."""
        images = self.generator.apply(variables, noise, labels, train=False)
        assert isinstance(images, jax.Array)
        return images

    def noise(self, key: jax.Array, ids: jax.Array) -> jax.Array:
        """Return noise [len(ids), Z]; row i depends only on the key and `ids[i]`."""
        return keyed_normal(named_key(key, "noise/sample"), ids, self.latent_size)

    def preview(self, state: GANState, key: jax.Array) -> jax.Array:
        """Return the averaged generator's images of fixed noise, [n, H, W, C] in [-1, 1]; if conditional, by class."""
        ids = jnp.arange(self.preview_count)
        labels = ids // self._preview_columns % self.classes if self.classes else None
        return self.generate(state.ema, self.noise(key, ids), labels)

    def show(self, preview: Any) -> Pictures:
        """Return the preview as a grid."""
        return Pictures(preview, columns=self._preview_columns)

    @property
    def _preview_columns(self) -> int:
        """Images in a row; of a conditional GAN, as many of each class as fit."""
        if self.classes:
            return max(1, self.preview_count // self.classes)
        return max(1, round(self.preview_count**0.5))

    def sample(
        self, state: GANState, *, num: int, seed: int, label: str = "", interpolate: bool = False, raw: bool = False
    ) -> Pictures:
        """Return images; see `sampling.sampled` and `sampling.interpolated`."""
        variables = state.generator.variables if raw else state.ema
        draw = interpolated if interpolate else sampled
        return draw(self, variables, num=num, seed=seed, label=label)
