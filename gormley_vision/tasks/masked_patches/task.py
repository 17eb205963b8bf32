"""Pre-training of a ViT without labels: hidden patches of an image are predicted from the others."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gormley_vision.augmentation.geometry import flip_half, shift
from gormley_vision.errors import UserError
from gormley_vision.models.vit import to_patches
from gormley_vision.randomness import named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.masked_patches.network import MaskedPatches, hidden_patches, targets_of, to_images
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.tasks.single_network import Arrays, State, Training

SHOWN = 8  # images of a preview, in rows of three: what is visible, the reconstruction, the image


@flax.struct.dataclass
class ReconstructionState(State):
    """The state of a single network, and the first images of the first batch, uint8 [8, H, W, C], for previews."""

    shown: jax.Array


@dataclasses.dataclass(frozen=True)
class PatchReconstruction:
    """The task."""

    network: MaskedPatches
    training: Training
    image_shape: tuple[int, int, int]
    hidden: int  # patches of an image
    normalised: bool
    flip: bool
    shift: int  # pixels

    afterwards = (
        "fine-tune it, by a config of classification with the same vit: python train.py --config=CONFIG "
        "--config.init_from={workdir} --config.classification.fresh_head=true"
    )

    @property
    def _grid(self) -> tuple[int, int]:
        return self.image_shape[0] // self._size, self.image_shape[1] // self._size

    @property
    def _size(self) -> int:
        return self.network.vit.patch_size

    def init(self, key: jax.Array) -> ReconstructionState:
        """Return a fresh state, a function of the key only."""
        images, order = jnp.zeros((1, *self.image_shape)), jnp.zeros((1, self._grid[0] * self._grid[1]), jnp.int32)
        state = self.training.start(
            self.network.init(named_key(key, "init/network"), images, order, self.hidden)["params"]
        )
        shown = jnp.zeros((SHOWN, *self.image_shape), jnp.uint8)
        return ReconstructionState(state.step, state.network, state.ema, shown)

    def train_step(
        self, state: ReconstructionState, batch: Arrays, key: jax.Array
    ) -> tuple[ReconstructionState, Arrays, Arrays]:
        """Take one gradient step on 'image' uint8 [1, m, H, W, C]; each step draws its own patches."""
        images = batch["image"][0]
        first = jnp.resize(images, (SHOWN, *self.image_shape))  # repeats a smaller batch
        shown = jnp.where(state.step == 0, first, state.shown)
        if self.flip:
            images = flip_half(named_key(key, "flip", state.step), images)
        if self.shift:
            images = shift(named_key(key, "shift", state.step), images, self.shift)
        order = self._orders(named_key(key, "patches", state.step), len(images))

        def loss(params: Any, parts: tuple[jax.Array, ...], key: jax.Array) -> tuple[jax.Array, Arrays]:
            images, order = parts
            predicted = self._predict({"params": params}, images, order, train=True, rngs={"dropout": key})
            return jnp.mean(self._errors(predicted, images, order)), {}

        after, metrics, checks = self.training.step(state, (to_unit_range(images), order), key, loss)
        return ReconstructionState(after.step, after.network, after.ema, shown), metrics, checks

    def _orders(self, key: jax.Array, count: int) -> jax.Array:
        """Return a random permutation of the patches for each image, int32 [count, N]."""
        patches = self._grid[0] * self._grid[1]
        return jnp.argsort(jax.random.uniform(key, (count, patches)), axis=1).astype(jnp.int32)

    def _predict(self, variables: Any, images: jax.Array, order: jax.Array, **options: Any) -> jax.Array:
        predicted: Any = self.network.apply(variables, images, order, self.hidden, **options)
        return predicted

    def _errors(self, predicted: jax.Array, images: jax.Array, order: jax.Array) -> jax.Array:
        """Return the error of each image [B], over hidden patches alone: L1 for SimMIM, squares for MAE."""
        difference = predicted - targets_of(images, self._size, self.normalised)
        each = jnp.mean(jnp.abs(difference) if self.network.method == "simmim" else jnp.square(difference), axis=-1)
        return jnp.sum(each * hidden_patches(order, self.hidden), axis=1) / self.hidden

    def eval_step(self, state: ReconstructionState, batch: Arrays) -> Arrays:
        """Return sums 'loss' and 'count' over the images whose 'mask' is set.

        Which patches are hidden depends on the image alone.
        """
        images = batch["image"]
        numbers = jnp.sum(images.astype(jnp.uint32), axis=(1, 2, 3))
        order = jax.vmap(lambda n: self._orders(jax.random.fold_in(jax.random.key(0), n), 1)[0])(numbers)
        images = to_unit_range(images)
        errors = self._errors(self._predict(state.ema, images, order), images, order)
        mask = batch["mask"].astype(jnp.float32)
        return {"loss": jnp.sum(errors * mask), "count": jnp.sum(mask)}

    def preview(self, state: ReconstructionState, key: jax.Array) -> jax.Array:
        """Return for each shown image what is visible, the reconstruction, and itself: [3 * 8, H, W, C] in [-1, 1].

        Visible patches of a reconstruction are the image's own. A patch that was predicted with mean 0 and variance 1
        gets the image's mean and variance back.
        """
        images, order = to_unit_range(state.shown), self._orders(named_key(key, "preview"), SHOWN)
        patches, hidden = to_patches(images, self._size), hidden_patches(order, self.hidden)[..., None]
        predicted = self._predict(state.ema, images, order)
        if self.normalised:
            mean, variance = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True, ddof=1)
            predicted = predicted * jnp.sqrt(variance + 1e-6) + mean
        rows = [jnp.where(hidden, 0, patches), jnp.where(hidden, predicted, patches), patches]
        pictures = jnp.stack([to_images(row, self._grid, self._size) for row in rows], axis=1)
        return jnp.clip(pictures.reshape(-1, *self.image_shape), -1, 1)

    def show(self, preview: Any) -> Pictures:
        """Return them in rows of two triples."""
        return Pictures(preview, columns=6)

    def transfer(
        self, weights: Arrays, state: ReconstructionState, *, config: Mapping[str, Any], class_names: tuple[str, ...]
    ) -> Arrays:
        """Return another such run's weights.

        Raises:
            UserError: the other run is of another task.
        """
        del state, class_names
        if "ema/params/mask_token" not in weights:
            raise UserError(
                f"init_from is a run of {config['task']}, and this needs one of masked patches: pass its folder"
            )
        return weights
