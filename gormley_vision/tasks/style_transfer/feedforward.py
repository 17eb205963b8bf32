"""A network that paints in one style: Johnson et al. 2016, arXiv:1603.08155."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.augmentation.geometry import flip_half
from gormley_vision.errors import UserError
from gormley_vision.models.style_nets import TransformerNet
from gormley_vision.randomness import named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.feature_nets import Maps, as_input
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.tasks.single_network import Arrays, State, Training
from gormley_vision.tasks.style_transfer.objective import Objective
from gormley_vision.tasks.style_transfer.pictures import open_picture

SHOWN = 8  # pictures of a preview, in pairs: the picture, restyled


@flax.struct.dataclass
class PainterState(State):
    """The state of a single network, pictures of the first batch, and the style: known from the first step on."""

    shown: jax.Array  # uint8 [8, H, W, 3]
    scales: Maps
    style: Maps


@dataclasses.dataclass(frozen=True, eq=False)
class Painter:
    """The task. `style_picture` is uint8 [1, H, W, 3]."""

    network: TransformerNet
    objective: Objective
    training: Training
    style_picture: np.ndarray
    image_shape: tuple[int, int, int]
    flip: bool

    afterwards = (
        "restyle a picture: python scripts/sample.py --workdir={workdir} --content=PHOTO.jpg --out=restyled.png"
    )

    def init(self, key: jax.Array) -> PainterState:
        """Return a fresh state, a function of the key only."""
        params = self.network.init(named_key(key, "init/network"), jnp.zeros((1, *self.image_shape)))["params"]
        state, channels = self.training.start(params), self.objective.net.architecture.channels
        return PainterState(
            state.step,
            state.network,
            state.ema,
            shown=jnp.zeros((SHOWN, *self.image_shape), jnp.uint8),
            scales=self.objective.net.unit_scales(),
            style={layer: jnp.zeros((1, *(channels[layer],) * 2)) for layer in self.objective.style_layers},
        )

    def train_step(self, state: PainterState, batch: Arrays, key: jax.Array) -> tuple[PainterState, Arrays, Arrays]:
        """Take one gradient step on 'image' uint8 [1, m, H, W, 3]."""
        images, first = batch["image"][0], state.step == 0
        shown = jnp.where(first, jnp.resize(images, (SHOWN, *self.image_shape)), state.shown)
        scales, style = jax.lax.cond(first, lambda: self._style(images), lambda: (state.scales, state.style))
        if self.flip:
            images = flip_half(named_key(key, "flip", state.step), images)

        def loss(params: Any, images: jax.Array, key: jax.Array) -> tuple[jax.Array, Arrays]:
            del key
            painted = self._paint({"params": params}, images)
            content = self.objective.content(self.objective.net(images, scales))
            parts = self.objective.parts(painted, scales, content, style)
            return sum(parts.values(), start=jnp.float32(0)), parts

        after, metrics, checks = self.training.step(state, to_unit_range(images), key, loss)
        return PainterState(after.step, after.network, after.ema, shown, scales, style), metrics, checks

    def _style(self, images: jax.Array) -> tuple[Maps, Maps]:
        """Return the scales, by the style and the first batch, and the style's Gram matrices."""
        picture, net = to_unit_range(as_input(self.style_picture)), self.objective.net
        scales = net.scales(picture, to_unit_range(images))
        return scales, self.objective.style(net(picture, scales))

    def _paint(self, variables: Any, images: jax.Array) -> jax.Array:
        painted: Any = self.network.apply(variables, images)
        return painted

    def preview(self, state: PainterState, key: jax.Array) -> jax.Array:
        """Return pictures of the first batch, each followed by what the averaged network makes of it: [16, H, W, 3]."""
        del key
        images = to_unit_range(state.shown)
        return jnp.stack([images, self._paint(state.ema, images)], axis=1).reshape(-1, *self.image_shape)

    def show(self, preview: Any) -> Pictures:
        """Return them in rows of two pairs."""
        return Pictures(preview, columns=4)

    def sample(
        self, state: PainterState, *, num: int, seed: int, content: str, image: str, size: int, alpha: float
    ) -> Pictures:
        """Return `content`, a file, restyled; or without it `num` pictures of the first batch, over and over.

        Raises:
            UserError: the file cannot be read, or an option of adain.
        """
        del seed
        if image or alpha != 1:
            raise UserError("--image and --alpha are of adain; this run has learned one style: leave them out")
        pictures = (
            open_picture("--content", content, size) if content else np.resize(state.shown, (num, *self.image_shape))
        )
        return Pictures(np.asarray(jax.jit(self._paint)(state.ema, to_unit_range(jnp.asarray(pictures)))))
