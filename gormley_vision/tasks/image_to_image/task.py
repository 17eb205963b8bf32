"""Image-to-image translation: a generator from image to image, and a discriminator that sees input and output.

pix2pix (Isola et al. 2017, arXiv:1611.07004) and what has its form: super-resolution, inpainting, uncropping,
colorization. A step makes inputs from targets (`degradations.py`), or has both as pairs; updates the discriminator
once, then the generator against it, on the same minibatch and the same outputs, as pix2pix's code does. The
generator descends weight * adversarial loss + weights * reconstruction losses; without an adversarial weight there is
no discriminator. No batch statistics are kept: BatchNorm, if at all, is by the batch at hand (models/unet.py says why).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gormley_vision.augmentation.geometry import crop_at_random, draw_mirrored, turn_at_random
from gormley_vision.errors import UserError
from gormley_vision.health import Rule, of_common
from gormley_vision.losses.adversarial import Objective
from gormley_vision.metrics.sharpness import gradient_energy
from gormley_vision.randomness import named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.feature_nets import FeatureNet
from gormley_vision.tasks.image_to_image import pictures
from gormley_vision.tasks.image_to_image.degradations import Degradation, Given
from gormley_vision.tasks.image_to_image.updates import Turn, generate, seen, update_discriminator, update_generator
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

Arrays = dict[str, jax.Array]
PLAYERS = ("generator", "discriminator")


@flax.struct.dataclass
class TranslationState:
    """All that training changes, and the first examples, for previews.

    `ema` holds the averaged generator's variables. `discriminator` is {} without an adversarial loss.
    """

    step: jax.Array
    generator: Network
    discriminator: Network | dict[str, Any]
    ema: Variables
    shown: Arrays


@dataclasses.dataclass(frozen=True)
class Translation:
    """The task."""

    generator: nn.Module
    discriminator: nn.Module | None
    degradation: Degradation
    source: str  # the feature that inputs are made of
    target: str  # the feature that is to be predicted
    residual: bool  # the generator's output is added to the input as it is shown
    classes: int  # of a label map that is the source; 0: it is an image
    shapes: Mapping[str, tuple[int, ...]]  # of the features above
    patch: int  # side of the targets, pixels
    turns: bool
    flip: bool
    objective: Objective
    conditional: bool  # the discriminator sees the input
    discriminator_weight: float
    penalties: tuple[str, ...]  # of losses/penalties.py
    losses: tuple[str, ...]  # of losses/reconstruction.py
    features: FeatureNet | None  # of the perceptual loss
    scalars: Mapping[str, float | Schedule]  # by config key
    update_rules: Mapping[str, str]  # by player
    multiple: int  # the sides of the generator's inputs are multiples of it
    reach: int | None  # pixels of the input around its own place that an output depends on; None: all
    batch_size: int
    accumulate: int
    ema_ramp: float
    preview_count: int

    afterwards = "translate pictures with it: python scripts/translate.py --workdir={workdir} --in=FOLDER --out=FOLDER"

    @property
    def rules(self) -> Sequence[Rule]:
        """Of the losses that are minimised: those of a game rise and fall in runs that do well."""
        minimised = [*self.losses, *([] if self.features is None else ["perceptual"])]
        return of_common(f"loss/{name}" for name in [*minimised, *([] if self.discriminator else ["generator"])])

    @property
    def input_channels(self) -> int:
        """Of the pictures that are translated."""
        return 1 if self.classes else self.shapes[self.source][-1]

    @property
    def fills(self) -> bool:
        """Whether holes are filled."""
        return self.degradation.needs_mask

    @property
    def squeezed_to(self) -> int:
        """The side to which a whole picture is squeezed; 0 for nets that see a small part at a time, or restore it.

        A U-Net that fills or colours looks at everything, and knows pictures of the size of training only.
        """
        whole = self.reach is None and (self.fills or self.degradation.channels > 0)
        return self.patch if whole or self.source != self.target else 0

    @property
    def scale(self) -> int:
        """How many times as large outputs are."""
        return self.degradation.scale

    def init(self, key: jax.Array) -> TranslationState:
        """Return a fresh state, a function of the key only."""
        zeros = {name: jnp.zeros((1, *shape), jnp.uint8) for name, shape in self.shapes.items()}
        given, target = self._given(key, self._cut(zeros))
        generator = {
            "params": self.generator.init(named_key(key, "init/generator"), given.inputs, train=False)["params"]
        }
        first = at(self.scalars, jnp.float32(0))
        discriminator: Any = {}
        if self.discriminator is not None:
            made = self.discriminator.init(named_key(key, "init/discriminator"), seen(self, given, target), train=True)
            variables = {"params": made["params"], "batch_stats": made.get("batch_stats", {})}
            discriminator = new_network(variables, self.optimizer("discriminator", first))
        return TranslationState(
            step=jnp.zeros((), jnp.int32),
            generator=new_network(generator | {"batch_stats": {}}, self.optimizer("generator", first)),
            discriminator=discriminator,
            ema=jax.tree.map(jnp.copy, generator),  # a copy: a donated buffer may appear only once
            shown={name: jnp.zeros((self.preview_count, *shape), jnp.uint8) for name, shape in self.shapes.items()},
        )

    def optimizer(self, player: str, scalars: Mapping[str, Number]) -> optax.GradientTransformation:
        """Return a player's update rule with a step's numbers."""
        return player_optimizer(self.update_rules, player, scalars)

    def train_step(
        self, state: TranslationState, batch: Arrays, key: jax.Array
    ) -> tuple[TranslationState, Arrays, Arrays]:
        """Update the discriminator, then the generator.

        Args:
            batch: features uint8 [1, m, H, W, C], a label map [1, m, H, W].
            key: the run's key; random draws also depend on `state.step`.

        Returns:
            The new state, scalars to log, and checks of finiteness.
        """
        seen = state.step.astype(jnp.float32) * self.batch_size
        scalars = at(self.scalars, seen)
        examples = {name: batch[name][0] for name in self.shapes}
        numbers = state.step * self.batch_size + jnp.arange(self.batch_size)
        shown = {name: state.shown[name].at[numbers].set(x, mode="drop") for name, x in examples.items()}
        parts = self._given(named_key(key, "degradation", state.step), self._augmented(key, state.step, examples))
        dropout = named_key(key, "dropout", state.step)
        metrics: Arrays = {
            f"schedule/{key}": jnp.asarray(scalars[key]) for key, x in self.scalars.items() if isinstance(x, Schedule)
        }
        discriminator: Any = state.discriminator
        checks: Arrays = {}
        turn = Turn(*parts, dropout, scalars)
        fake, pull = generate(self, state.generator, turn)
        if self.discriminator is not None:
            discriminator, logged, checked = update_discriminator(self, discriminator, turn, fake)
            metrics, checks = metrics | logged, checks | checked
        generator, logged, checked = update_generator(self, state.generator, discriminator, turn, fake, pull)
        metrics, checks = metrics | logged, checks | checked
        half_life = scalars["translation.ema_half_life"]
        decay = ema_decay(seen + self.batch_size, self.batch_size, half_life, self.ema_ramp)
        ema = moving_average(state.ema, {"params": generator.variables["params"]}, decay)
        return TranslationState(state.step + 1, generator, discriminator, ema, shown), metrics, checks

    def _augmented(self, key: jax.Array, step: jax.Array, examples: Arrays) -> Arrays:
        """Cut out, mirror and turn at random; the pictures of a pair alike."""
        cut, mirror, turn = (named_key(key, name, step) for name in ("patch", "flip", "turn"))

        def moved(x: jax.Array) -> jax.Array:
            images = x if x.ndim == 4 else x[..., None]
            images = crop_at_random(cut, images, self.patch)
            if self.flip:
                mirrored = draw_mirrored(mirror, len(images))[:, None, None, None]
                images = jnp.where(mirrored, images[:, :, ::-1], images)
            images = turn_at_random(turn, images) if self.turns else images
            return images if x.ndim == 4 else images[..., 0]

        return {name: moved(x) for name, x in examples.items()}

    def _cut(self, examples: Arrays) -> Arrays:
        """Cut the centre out of uint8 pictures: what is evaluated and shown."""

        def centre(x: jax.Array) -> jax.Array:
            top, left = ((size - self.patch) // 2 for size in x.shape[1:3])
            return x[:, top : top + self.patch, left : left + self.patch]

        return {name: centre(x) for name, x in examples.items()}

    def _given(self, key: jax.Array, examples: Arrays) -> tuple[Given, jax.Array]:
        """Return inputs and targets of uint8 pictures."""
        target = self.degradation.from_rgb(to_unit_range(examples[self.target]))
        if self.source == self.target:
            return self.degradation.given(*self.degradation.corrupt(key, target)), target
        return self.degradation.given(self.read(examples[self.source]), None), target

    def read(self, pictures: jax.Array) -> jax.Array:
        """Convert uint8 pictures [B, H, W, C], or label maps [B, H, W], to the degradation's images."""
        if self.classes:
            return jax.nn.one_hot(pictures, self.classes)  # 255, no class, becomes zeros
        return self.degradation.from_rgb(to_unit_range(pictures))

    def image(self, given: Given, output: jax.Array) -> jax.Array:
        """Return the image that a generator's output stands for, in the degradation's colour space."""
        if self.residual:
            output = output + given.shown[..., -output.shape[-1] :]  # of Lab a and b
        return self.degradation.image(given, output)

    def eval_step(self, state: TranslationState, batch: Arrays) -> Arrays:
        """Return sums over the examples whose 'mask' is set, and 'count', of outputs in 8 bits: 'l1', 'psnr', 'energy'.

        Those of the input as it is, where that is an image, are 'given_l1' and so on; 'target_energy' is that of
        targets. What is drawn at random for an input depends on its target alone.
        """
        examples = self._cut({name: batch[name] for name in self.shapes})
        numbers = jnp.sum(examples[self.target].astype(jnp.uint32), axis=(1, 2, 3))

        def one(number: jax.Array, example: Arrays) -> Any:
            alone = jax.tree.map(lambda x: x[None], example)
            return jax.tree.map(lambda x: x[0], self._given(jax.random.fold_in(jax.random.key(0), number), alone)[0])

        given = jax.vmap(one)(numbers, examples)
        output: Any = self.generator.apply(state.ema, given.inputs, train=False)
        mask, target = batch["mask"].astype(jnp.float32), examples[self.target].astype(jnp.float32)
        sums = {"count": jnp.sum(mask)}
        measured = {"": self.image(given, output)} | ({} if self.classes else {"given_": given.shown})
        for name, images in measured.items():
            error = (self.levels(images) - target) / 255
            squared = jnp.maximum(jnp.mean(jnp.square(error), axis=(1, 2, 3)), 1e-10)  # at most 100 dB
            sums[f"{name}l1"] = jnp.sum(jnp.mean(jnp.abs(error), axis=(1, 2, 3)) * mask)
            sums[f"{name}psnr"] = jnp.sum(-10 * jnp.log10(squared) * mask)
            sums[f"{name}energy"] = jnp.sum(gradient_energy(self.levels(images)) * mask)
        sums["target_energy"] = jnp.sum(gradient_energy(target) * mask)
        return sums

    def eval_figures(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return 'sharpness' in place of energies: the gradient energy of outputs over that of targets."""
        figures = {name: mean for name, mean in means.items() if not name.endswith("energy")}
        energies = {name: means[f"{name}energy"] for name in ("", "given_") if f"{name}energy" in means}
        whole = max(means["target_energy"], 1e-12)
        return figures | {f"{name}sharpness": energy / whole for name, energy in energies.items()}

    def levels(self, images: jax.Array) -> jax.Array:
        """Convert the degradation's images to whole numbers from 0 to 255, in RGB, float32."""
        return jnp.clip(jnp.round((self.degradation.to_rgb(images).astype(jnp.float32) + 1) * 127.5), 0, 255)

    def translate(
        self,
        state: TranslationState,
        picture: np.ndarray,
        known: np.ndarray | None = None,
        *,
        tile: int = 0,
        own_size: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture as the averaged generator makes it, and as it was given; see `pictures.translate`."""
        return pictures.translate(self, state, picture, known, tile, own_size)

    def degrade(self, target: np.ndarray, number: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return a picture, and an input made of it as in training; see `pictures.degrade`.

        Raises:
            UserError: the run learned from pairs.
        """
        if self.source != self.target:
            raise UserError("this run learned from pairs, and makes no inputs itself: leave out --degrade")
        return pictures.degrade(self, target, number)

    @functools.cached_property
    def compiled_pictures(self) -> Any:
        """`pictures.pictures` of this task, compiled."""
        return jax.jit(functools.partial(pictures.pictures, self))

    @functools.cached_property
    def compiled_restoring(self) -> Any:
        """`pictures.restored` of this task, compiled."""
        return jax.jit(functools.partial(pictures.restored, self))

    @functools.cached_property
    def compiled_corruption(self) -> Any:
        """`pictures.corrupted` of this task, compiled."""
        return jax.jit(functools.partial(pictures.corrupted, self))

    def preview(self, state: TranslationState, key: jax.Array) -> jax.Array:
        """Return for each shown example what is given, the output, and the target: [3 n, H, W, C] in [-1, 1]."""
        given, target = self._given(named_key(key, "preview"), self._cut(state.shown))
        output: Any = self.generator.apply(state.ema, given.inputs, train=False)
        rows = [self.degradation.to_rgb(x) for x in (given.shown, self.image(given, output), target)]
        channels = max(row.shape[-1] for row in rows)
        rows = [jnp.broadcast_to(row, (*row.shape[:3], channels)) for row in rows]
        triples = jnp.stack(rows, axis=1)
        return jnp.clip(triples.reshape(-1, *triples.shape[2:]), -1, 1)

    def show(self, preview: Any) -> Pictures:
        """Return them in rows of two triples."""
        return Pictures(np.asarray(preview, np.float32), columns=6)

    def transfer(
        self, weights: Arrays, state: TranslationState, *, config: Mapping[str, Any], class_names: tuple[str, ...]
    ) -> Arrays:
        """Return another such run's weights; a discriminator that it lacks starts fresh, one that is not played with is
        left out.

        Raises:
            UserError: the other run is of another task.
        """
        del class_names
        if config["task"] != "image_to_image":
            raise UserError(
                f"init_from is a run of {config['task']}, and this needs one of image_to_image: pass its folder"
            )
        own = {name: x for name, x in weights.items() if not name.startswith("discriminator/")}
        if not isinstance(state.discriminator, Network):
            return own
        if len(own) < len(weights):
            return weights
        paths = jax.tree_util.tree_leaves_with_path(state.discriminator.variables)
        fresh = {"/".join(["discriminator", "variables", *(key.key for key in path)]): x for path, x in paths}
        return own | fresh
