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
objective: penalties leave them as they are. `updates.py` has one update of either player.

Numbers of a recipe may follow a schedule of the images seen before the step, those of k (or k + 1) minibatches each.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from gormley_vision.augmentation.geometry import flip_half
from gormley_vision.errors import UserError
from gormley_vision.finiteness import finite
from gormley_vision.losses.adversarial import Objective
from gormley_vision.randomness import keyed_normal, named_key
from gormley_vision.samples import FIELD, Pictures, Points, field_points
from gormley_vision.tasks.gan import health, spectral_norm
from gormley_vision.tasks.gan.adaptive import start, steered
from gormley_vision.tasks.gan.sampling import sampled
from gormley_vision.tasks.gan.updates import Turn, effective, update_discriminator, update_generator
from gormley_vision.tasks.networks import (
    Network,
    Variables,
    ema_decay,
    moving_average,
    new_network,
    to_unit_range,
)
from gormley_vision.tasks.optimizers import player_optimizer
from gormley_vision.tasks.scalars import Number, Schedule, at

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class GANState:
    """All that training changes. `ema` holds the averaged generator's variables; `augmentation` ADA's controller."""

    step: jax.Array
    generator: Network
    discriminator: Network
    ema: Variables
    augmentation: dict[str, jax.Array] = flax.struct.field(default_factory=dict)


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
    penalties: Mapping[str, Callable]  # of the discriminator, functions of losses/penalties.py by their config key
    penalty_every: int  # steps
    scalars: Mapping[str, float | Schedule]  # by config key
    update_rules: Mapping[str, str]  # by player
    latent_size: int
    latent: str  # 'normal' or 'uniform'
    example: str  # the feature that is generated: 'image', or 'vector'
    example_shape: tuple[int, ...]
    extent: float  # of plots of vectors, from -extent to extent
    class_names: tuple[str, ...]  # () if the game is unconditional
    batch_size: int
    minibatches: int
    generator_factor: int  # fakes in the generator's update for each image of a minibatch
    accumulate: int  # microbatches of a minibatch
    phases: tuple[Phase, ...]
    ema_ramp: float
    flip: bool
    dequantize: bool
    augment: tuple[tuple[str, float], ...]  # policies.parsed
    augment_target: float  # of ADA; 0 for a fixed probability
    augment_speed: float  # images in which ADA's probability may go from 0 to 1
    spectral: bool  # normalisation of the discriminator
    clip_weights: float
    preview_count: int

    afterwards = "sample from it: python scripts/sample.py --workdir={workdir} --out=samples.png"

    @property
    def classes(self) -> int:
        """The number of classes that condition the game; 0 if it is unconditional."""
        return len(self.class_names)

    def init(self, key: jax.Array) -> GANState:
        """Return a fresh state, a function of the key only."""
        g, d = (
            {"params": v["params"], "batch_stats": v.get("batch_stats", {})}
            for v in (self._init_generator(key), self._init_discriminator(key))
        )
        if self.spectral:
            vectors = spectral_norm.start(nn.unbox(d["params"]), self.matrices, named_key(key, "init/spectral"))
            d["spectral"] = vectors
        first = at(self.scalars, jnp.float32(0))
        return GANState(
            step=jnp.zeros((), jnp.int32),
            generator=new_network(g, self.optimizer("generator", first)),
            discriminator=new_network(d, self.optimizer("discriminator", first)),
            ema=jax.tree.map(jnp.copy, g),  # a copy: a donated buffer may appear only once
            augmentation=start() if self.augment_target else {},
        )

    def _init_generator(self, key: jax.Array) -> Any:
        noise = jnp.zeros((2, self.latent_size))
        return self.generator.init(named_key(key, "init/generator"), noise, self._first_labels, train=True)

    def _init_discriminator(self, key: jax.Array) -> Any:
        keys = {"params": named_key(key, "init/discriminator"), "dropout": named_key(key, "init/dropout")}
        return self.discriminator.init(keys, jnp.zeros((2, *self.example_shape)), self._first_labels, train=True)

    @property
    def _first_labels(self) -> jax.Array | None:
        return jnp.zeros((2,), jnp.int32) if self.classes else None

    @functools.cached_property
    def matrices(self) -> dict[tuple[str, ...], spectral_norm.Matrix]:
        """The discriminator's matrices, which spectral normalisation divides."""
        return spectral_norm.matrices(jax.eval_shape(self._init_discriminator, jax.random.key(0))["params"])

    def optimizer(self, player: str, scalars: Mapping[str, Number]) -> optax.GradientTransformation:
        """Return a player's update rule with a step's numbers."""
        return player_optimizer(self.update_rules, player, scalars)

    def train_step(self, state: GANState, batch: Batch, key: jax.Array) -> tuple[GANState, Metrics, Metrics]:
        """Run one iteration of Algorithm 1.

        Args:
            batch: 'image' uint8 [k, m, H, W, C] or 'vector' [k, m, n], and 'label' int32 [k, m].
            key: the run's key; random draws also depend on `state.step`.

        Returns:
            The new state; scalars to log; and for each loss and gradient, in the order computed, whether
            it is finite.
        """
        images_per_step = self.batch_size * self.minibatches
        seen = state.step.astype(jnp.float32) * images_per_step
        scalars = at(self.scalars, seen)
        probability = state.augmentation.get("probability", scalars["gan.augment_probability"])
        scheduled = (key for key, value in self.scalars.items() if isinstance(value, Schedule))
        metrics: Metrics = {f"schedule/{key}": jnp.asarray(scalars[key]) for key in scheduled}
        checks: Metrics = {}
        discriminators = [state.discriminator]
        generator, augmentation = state.generator, state.augmentation
        for phase in self.phases:
            draw = partial(named_key, key, step=state.step, index=phase.minibatch)
            discriminates = phase.player == "discriminator"
            reads_real = discriminates or self.objective.relativistic
            fakes = self.batch_size * (1 if discriminates else self.generator_factor)
            turn = Turn(
                real=self._prepared(draw, batch[self.example][phase.minibatch]) if reads_real else None,
                labels=batch["label"][phase.minibatch] if self.classes else None,
                noise=self.latents(draw(phase.noise), fakes),
                draw=draw,
                scalars=scalars,
                augment_probability=probability,
                step=state.step,
            )
            if discriminates:
                player, gradients, logged, sign = update_discriminator(
                    self, discriminators[-1], generator.variables, turn
                )
                discriminators.append(player)
                if self.augment_target:
                    logged["augment/probability"] = jnp.asarray(probability)
                    logged["augment/sign_of_real"] = sign
            else:
                opponent = discriminators[-2 if phase.meets_previous else -1]
                generator, gradients, logged = update_generator(self, generator, opponent.variables, turn)
            metrics |= logged
            prefix = f"{phase.player}[{phase.minibatch}]"
            checks |= finite(f"{prefix}/loss", logged[f"loss/{phase.player}"])
            checks |= finite(f"{prefix}/gradient", gradients)
        if self.augment_target:
            signs = metrics["augment/sign_of_real"]
            augmentation = steered(
                augmentation, signs, state.step, self.augment_target, images_per_step / self.augment_speed
            )
        half_life = scalars["gan.ema_half_life"]
        decay = ema_decay(seen + images_per_step, images_per_step, half_life, self.ema_ramp)
        ema = moving_average(state.ema, generator.variables, decay)
        after = GANState(state.step + 1, generator, discriminators[-1], ema, augmentation)
        return after, metrics, checks

    def latents(self, key: jax.Array, count: int) -> jax.Array:
        """Draw noise [count, Z] of mean 0 and variance 1."""
        shape = (count, self.latent_size)
        if self.latent == "normal":
            return jax.random.normal(key, shape)
        return jax.random.uniform(key, shape, minval=-(3**0.5), maxval=3**0.5)

    def _prepared(self, draw: Callable[[str], jax.Array], examples: jax.Array) -> jax.Array:
        """Convert uint8 images to float32 in [-1, 1], half of them mirrored if `flip`; vectors are left as they are."""
        if self.example != "image":
            return examples.astype(jnp.float32)
        real = to_unit_range(examples)
        if self.dequantize:  # by less than one of 256 levels
            real += jax.random.uniform(draw("dequantize"), real.shape, maxval=1 / 128)
        return flip_half(draw("flip"), real) if self.flip else real

    def transfer(
        self, weights: dict[str, jax.Array], state: GANState, *, config: Any, class_names: tuple[str, ...]
    ) -> dict[str, jax.Array]:
        """Return another run's weights unchanged: both GANs must be alike.

        Raises:
            UserError: the other run is not a GAN's; or it is conditional on other classes, or in another order.
        """
        del state
        if not any(name.startswith("generator/") for name in weights):
            raise UserError(f"init_from is a run of {config['task']}, and this needs a gan run: pass its folder")
        if self.class_names and class_names != self.class_names:
            raise UserError(
                f"init_from was conditioned on the classes {', '.join(class_names) or 'none'}; here they are "
                f"{', '.join(self.class_names)}: name them alike, or start fresh with --config.init_from=''"
            )
        return weights

    def generate(self, variables: Variables, noise: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Return images [B, H, W, C] in [-1, 1], or vectors, from noise [B, Z], normalised by running statistics."""
        made = self.generator.apply(variables, noise, labels, train=False)
        assert isinstance(made, jax.Array)
        return jnp.clip(made, -1, 1) if self.example == "image" else made  # R3GAN's images are not bounded

    def noise(self, key: jax.Array, ids: jax.Array) -> jax.Array:
        """Return noise [len(ids), Z]; row i depends only on the key and `ids[i]`."""
        key = named_key(key, "noise/sample")
        if self.latent == "normal":
            return keyed_normal(key, ids, self.latent_size)
        return jax.vmap(lambda i: self.latents(jax.random.fold_in(key, i), 1)[0])(ids)

    def generated(self, state: GANState, key: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Return the averaged generator's images [n, H, W, C] in [-1, 1], of classes in turn, and their labels."""
        labels = ids % self.classes if self.classes else None
        return self.generate(state.ema, self.noise(key, ids), labels), labels

    rules = health.RULES

    def examine(self, state: GANState, key: jax.Array, real: Batch, held_out: Batch) -> Metrics:
        """Return figures of both players' health; see `health.examined`."""
        return health.examined(self, state, key, real, held_out)

    def preview(self, state: GANState, key: jax.Array) -> jax.Array:
        """Return the averaged generator's images of fixed noise, [n, H, W, C] in [-1, 1]; if conditional, by class.

        Of vectors, [n + FIELD^2, 3]: the first two numbers of each with 0, then points of a square with D's logits.
        """
        ids = jnp.arange(self.preview_count)
        labels = ids // self._preview_columns % self.classes if self.classes else None
        made = self.generate(state.ema, self.noise(key, ids), labels)
        if self.example == "image":
            return made
        square = jnp.asarray(field_points(self.extent))
        logits = jnp.zeros(len(square))
        if self.example_shape == (2,) and not self.classes:
            variables = effective(self, state.discriminator.variables)
            judged = self.discriminator.apply(variables, square, None, train=False)
            assert isinstance(judged, jax.Array)
            logits = judged
        points = jnp.pad(made[:, :2], ((0, 0), (0, 3 - min(2, made.shape[1]))))
        return jnp.concatenate([points, jnp.concatenate([square, logits[:, None]], axis=1)])

    def show(self, preview: Any) -> Pictures | Points:
        """Return the preview as a grid, or as a plot of points over D's logits."""
        if self.example == "image":
            return Pictures(preview, columns=self._preview_columns)
        count = len(preview) - FIELD**2
        return Points(preview[:count, :2], self.extent, preview[count:, 2].reshape(FIELD, FIELD))

    @property
    def _preview_columns(self) -> int:
        """Images in a row; of a conditional GAN, as many of each class as fit."""
        if self.classes:
            return max(1, self.preview_count // self.classes)
        return max(1, round(self.preview_count**0.5))

    def sample(
        self, state: GANState, *, num: int, seed: int, first: int = 0, raw: bool = False, **options: Any
    ) -> Pictures | Points:
        """Return images or points; see `sampling.sampled` for the options."""
        variables = state.generator.variables if raw else state.ema
        return sampled(self, variables, num=num, seed=seed, first=first, **options)
