"""What a picture is judged by: content, style by Gram matrices, and total variation."""

import dataclasses

import jax
import jax.numpy as jnp

from gormley_vision.losses.style import Gram, content_loss, gram_loss, gram_matrix, total_variation
from gormley_vision.tasks.feature_nets import FeatureNet, Maps


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """The weighted losses of pictures: Gatys et al. 2015 (arXiv:1508.06576), and total variation."""

    net: FeatureNet
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    content_weight: float
    style_weight: float
    tv_weight: float
    gram: Gram

    def content(self, maps: Maps) -> Maps:
        """Return the maps whose values are kept."""
        return {layer: maps[layer] for layer in self.content_layers}

    def style(self, maps: Maps) -> Maps:
        """Return the Gram matrices, [B, C, C]."""
        return {layer: gram_matrix(maps[layer]) for layer in self.style_layers}

    def parts(self, pictures: jax.Array, scales: Maps, content: Maps, style: Maps) -> dict[str, jax.Array]:
        """Return the weighted losses of pictures [B, H, W, 3], by name; layers count the same.

        `content` is of these pictures; `style`, Gram matrices [1, C, C], is common to them.
        """
        maps = self.net(pictures, scales)
        grams = self.style(maps)
        kept = [content_loss(maps[layer], content[layer]) for layer in self.content_layers]
        styled = [gram_loss(g, jnp.broadcast_to(style[layer], g.shape), self.gram) for layer, g in grams.items()]
        return {
            "loss/content": self.content_weight * jnp.mean(jnp.stack(kept)),
            "loss/style": self.style_weight * jnp.mean(jnp.stack(styled)),
            "loss/total_variation": self.tv_weight * total_variation(pictures),
        }
