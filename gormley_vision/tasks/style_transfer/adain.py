"""A decoder for any style: Huang & Belongie 2017, arXiv:1703.06868.

The encoder is the frozen feature network; the decoder learns to paint features whose channels have the style's mean and
deviation. Deviations: the encoder pads by zeros, and styles are other pictures of the same data set (WikiArt there).
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.augmentation.geometry import flip_half
from gormley_vision.losses.style import adaptive_instance_norm, content_loss, statistics_loss, total_variation
from gormley_vision.models.style_nets import Decoder
from gormley_vision.models.vgg import CHANNELS
from gormley_vision.randomness import named_key
from gormley_vision.samples import Pictures
from gormley_vision.tasks.feature_nets import FeatureNet, Maps
from gormley_vision.tasks.networks import to_unit_range
from gormley_vision.tasks.single_network import Arrays, State, Training
from gormley_vision.tasks.style_transfer.pictures import open_picture

SHOWN = 8  # pairs of a preview, in rows of three: content, style, result


@flax.struct.dataclass
class DecoderState(State):
    """The state of a single network; contents and styles of the first batch, and scales known from it."""

    shown: jax.Array  # uint8 [2, 8, H, W, 3]
    scales: Maps


@dataclasses.dataclass(frozen=True, eq=False)
class StyleDecoder:
    """The task."""

    decoder: Decoder
    net: FeatureNet
    style_layers: tuple[str, ...]
    content_weight: float
    style_weight: float
    tv_weight: float
    training: Training
    image_shape: tuple[int, int, int]
    flip: bool

    afterwards = (
        "restyle a picture: python scripts/sample.py --workdir={workdir} --content=PHOTO.jpg --image=STYLE.jpg "
        "--out=restyled.png"
    )

    def init(self, key: jax.Array) -> DecoderState:
        """Return a fresh state, a function of the key only."""
        features = jnp.zeros((1, 4, 4, CHANNELS[self.decoder.layer]))
        state = self.training.start(self.decoder.init(named_key(key, "init/network"), features)["params"])
        shown = jnp.zeros((2, SHOWN, *self.image_shape), jnp.uint8)
        return DecoderState(state.step, state.network, state.ema, shown, self.net.unit_scales())

    def train_step(self, state: DecoderState, batch: Arrays, key: jax.Array) -> tuple[DecoderState, Arrays, Arrays]:
        """Take one gradient step on 'image' uint8 [2, m, H, W, 3]: contents, and the style of each."""
        images, first = batch["image"], state.step == 0
        shown = jnp.where(first, jnp.stack([jnp.resize(x, state.shown.shape[1:]) for x in images]), state.shown)
        scales = jax.lax.cond(first, lambda: self.net.scales(*(to_unit_range(x) for x in images)), lambda: state.scales)
        content, style = images
        if self.flip:
            content = flip_half(named_key(key, "flip", state.step), content)

        def loss(params: Any, pair: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[jax.Array, Arrays]:
            del key
            content, style = (self.net(x, scales) for x in pair)
            target = adaptive_instance_norm(content[self.decoder.layer], style[self.decoder.layer])
            painted = self._decode({"params": params}, target)
            maps = self.net(painted, scales)
            styled = [statistics_loss(maps[layer], style[layer]) for layer in self.style_layers]
            parts = {
                "loss/content": self.content_weight * content_loss(maps[self.decoder.layer], target),
                "loss/style": self.style_weight * jnp.mean(jnp.stack(styled)),
                "loss/total_variation": self.tv_weight * total_variation(painted),
            }
            return sum(parts.values(), start=jnp.float32(0)), parts

        pair = to_unit_range(content), to_unit_range(style)
        after, metrics, checks = self.training.step(state, pair, key, loss)
        return DecoderState(after.step, after.network, after.ema, shown, scales), metrics, checks

    def _decode(self, variables: Any, features: jax.Array) -> jax.Array:
        painted: Any = self.decoder.apply(variables, features)
        return painted

    def restyle(self, state: DecoderState, content: jax.Array, style: jax.Array, alpha: float = 1.0) -> jax.Array:
        """Return `content` in the style of `style`, both uint8 [B, H, W, 3], as [B, H, W, 3] in [-1, 1].

        `alpha` mixes features: at 0 the content's are decoded as they are (equation 14 there). Height and width are
        rounded down to what the encoder's halvings leave.
        """
        features, styled = (self.net(to_unit_range(x), state.scales)[self.decoder.layer] for x in (content, style))
        mixed = alpha * adaptive_instance_norm(features, styled) + (1 - alpha) * features
        return jnp.clip(self._decode(state.ema, mixed), -1, 1)

    def preview(self, state: DecoderState, key: jax.Array) -> jax.Array:
        """Return contents and styles of the first batch, and results: [3 * 8, H, W, 3] in [-1, 1]."""
        del key
        content, style = state.shown
        rows = [to_unit_range(content), to_unit_range(style), self.restyle(state, content, style)]
        return jnp.stack(rows, axis=1).reshape(-1, *self.image_shape)

    def show(self, preview: Any) -> Pictures:
        """Return them in rows of two triples."""
        return Pictures(preview, columns=6)

    def sample(
        self, state: DecoderState, *, num: int, seed: int, content: str, image: str, size: int, alpha: float
    ) -> Pictures:
        """Return `content` in the style of `image`, both files; in place of a missing one, `num` of the first batch.

        Raises:
            UserError: a file cannot be read.
        """
        del seed
        count = 1 if content else num
        pair = [
            open_picture(f"--{name}", text, size) if text else np.resize(shown, (count, *self.image_shape))
            for name, text, shown in (("content", content, state.shown[0]), ("image", image, state.shown[1]))
        ]
        style = np.resize(pair[1], (count, *pair[1].shape[1:]))
        restyled = jax.jit(self.restyle)(state, jnp.asarray(pair[0]), jnp.asarray(style), alpha)
        return Pictures(np.asarray(restyled))
