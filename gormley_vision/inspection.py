"""What a trained Vision Transformer attends to, and how it encodes positions: data for `scripts/visualize.py`.

Shapes: L layers, B images, K heads, N tokens in the order [CLS], registers, patches of an h x w grid row by row. Layers
count from 0. All functions are pure, and take the network and its parameters, or arrays.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gormley_vision.errors import UserError
from gormley_vision.layers import rope
from gormley_vision.layers.blocks import Block
from gormley_vision.models.vit import ViT
from gormley_vision.sampling import Restored

Params = Mapping[str, Any]
Grid = tuple[int, int]  # patches (height, width)


@runtime_checkable
class Inspected(Protocol):
    """A task whose network is a Vision Transformer."""

    def vision_transformer(self, state: Any) -> tuple[ViT, Params]:
        """Return the network and its averaged parameters, which evaluation uses."""


def vision_transformer_of(run: Restored) -> tuple[ViT, Params]:
    """Return a run's Vision Transformer and its averaged parameters.

    Raises:
        UserError: the run trained something else.
    """
    if not isinstance(run.task, Inspected):
        raise UserError(f"a run of {run.config['task']} has no attention to show: pass the folder of a run with a ViT")
    return run.task.vision_transformer(run.state)


# ---------------------------------------------------------------------------------------------------------
# Attention.


def attention_maps(model: ViT, params: Params, images: jax.Array, layers: Iterable[int]) -> dict[int, np.ndarray]:
    """Return the attention A of the chosen layers, {layer: [B, K, N, N]}, row = query.

    Images are float [B, H, W, C] in [-1, 1]. The other layers run as in training, and do not store their weights.
    """
    wanted = set(layers)
    _, recorded = encode(model, params, images, wanted)
    return {layer: np.asarray(found["maps"]["attention"]["weights"][0]) for layer, found in recorded.items()}


def attention_scores(model: ViT, params: Params, images: jax.Array, layers: Iterable[int]) -> dict[int, np.ndarray]:
    """Return the softmax's input S = rotated q . k / sqrt(Dh) of these layers, {layer: [B, K, N, N]}, row = query."""
    wanted = set(layers)
    _, recorded = encode(model, params, images, wanted)
    grid = _grid_of(model, images)
    angles = None if model.rope == "none" else rotation_angles(model, params, grid)
    pairing = model.block_options(grid)["pairing"]
    scores = {}
    for layer, found in recorded.items():
        inner = found["intermediates"]["attention"]
        query, key, _ = (x.astype(jnp.float32) for x in inner["qkv"]["__call__"][0])
        if model.qk_norm:
            query, key = (inner[name]["__call__"][0].astype(jnp.float32) for name in ("query_norm", "key_norm"))
        if angles is not None:
            rotate = partial(rope.apply_rope, angles=jnp.asarray(angles[layer]), pairing=pairing, token_axis=-3)
            query, key = rotate(query), rotate(key)
        scores[layer] = np.asarray(jnp.einsum("btkd,bskd->bkts", query, key)) * query.shape[-1] ** -0.5
    return scores


def encode(
    model: ViT, params: Params, images: jax.Array, layers: Iterable[int] = ()
) -> tuple[jax.Array, dict[int, dict[str, Any]]]:
    """Return the last layer's tokens [B, N, D], as in the network itself, and what the chosen layers recorded.

    Runs one layer after another with the network's own `Block`. Recorded are 'maps' and, as 'intermediates', the
    outputs of the projection to Q, K, V and of their norms.
    """
    wanted = set(layers)
    if beyond := sorted(wanted - set(range(model.depth))):
        raise ValueError(f"layers {beyond} of a network whose layers are 0 ... {model.depth - 1}")
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in ("parent", "name")}
    embedded: Any = _Embedding(**fields).apply({"params": params}, images)
    tokens, rotation = embedded
    block = Block(**model.block_options(_grid_of(model, images)))
    rate = jnp.zeros(())  # nothing is dropped outside training

    def plain(layer, tokens):
        return block.apply({"params": layer}, tokens, rate, rotation)[0]

    def recording(layer, tokens):
        options: Any = {"mutable": ["maps", "intermediates"], "capture_intermediates": _is_query_or_key}
        (tokens, _), found = block.apply({"params": layer}, tokens, rate, rotation, **options)
        return tokens, found

    plain, recording = jax.jit(plain), jax.jit(recording)
    recorded = {}
    for index, layer in enumerate(_layers(model, params)):
        if index in wanted:
            tokens, recorded[index] = recording(layer, tokens)
        else:
            tokens = plain(layer, tokens)
    return tokens, recorded


def attention_rollout(maps: np.ndarray) -> np.ndarray:
    """Return the share of each input token (column) in each output token (row), [L, B, K, N, N] -> [B, N, N].

    Abnar & Zuidema 2020 (arXiv:2005.00928), section 3: the product over layers, last one leftmost, of half the mean
    attention of the heads and half the identity, which stands for the residual stream. It ignores values and
    MLPs.
    """
    identity = np.eye(maps.shape[-1])
    rolled = np.broadcast_to(identity, (maps.shape[1], *identity.shape))
    for layer in maps:
        mixed = 0.5 * layer.mean(axis=1, dtype=np.float64) + 0.5 * identity
        rolled = mixed / mixed.sum(axis=-1, keepdims=True) @ rolled
    return rolled


def read_out(rows: np.ndarray, pooling: str, num_prefix_tokens: int, grid: Grid) -> np.ndarray:
    """Return the patches' share in what the head reads, [..., N, N] -> [..., h, w].

    The class token's row; with mean pooling the mean over the patches' rows; with attention pooling that over all rows
    (the probe's own weights are not in it).
    """
    chosen = {"cls": slice(0, 1), "gap": slice(num_prefix_tokens, None), "map": slice(None)}[pooling]
    return rows[..., chosen, num_prefix_tokens:].mean(axis=-2).reshape(*rows.shape[:-2], *grid)


# ---------------------------------------------------------------------------------------------------------
# Positions.


def learned_positions(params: Params, grid: Grid) -> np.ndarray:
    """Return the patches' rows of the learned table, [h*w, D], without [CLS]'s."""
    table = np.asarray(params["position_embedding"][0], np.float32)
    return table[len(table) - grid[0] * grid[1] :]


def position_similarity(table: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of all pairs, [h*w, D] -> [h*w, h*w] (arXiv:2010.11929, figure 7, centre)."""
    unit = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    return unit @ unit.T


def rotation_angles(model: ViT, params: Params, grid: Grid) -> np.ndarray:
    """Return the radians by which each layer rotates each token's pairs, [L, N, K or 1, Dh/2]; K if learned."""
    rotation, mixed = model.rotation(grid), model.block_options(grid)["mixed_rope"]
    if rotation is None:
        raise ValueError("this network rotates nothing: rope='none'")
    if mixed is None:
        shared = np.asarray(rotation.angles)[None, :, None]
        return np.broadcast_to(shared, (model.depth, *shared.shape[1:]))
    assert rotation.positions is not None
    angles = []
    for layer in _layers(model, params):
        frequencies = layer["attention"]["rope_frequencies"]
        if mixed.ntk_scale != (1.0, 1.0):
            frequencies = rope.ntk_mixed_frequencies(frequencies, mixed.ntk_scale)
        angles.append(np.asarray(rope.mixed_angles(rotation.positions, frequencies)))
    return np.stack(angles)


def rope_similarity(angles: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the effect of rotation alone on scores, by offset: [..., h*w, Dh/2] -> [..., 2h-1, 2w-1], 1 if none.

    The score of an equal query and key whose pairs all have length one, divided by the number of pairs:
    Re sum_i exp(i (angle_i(key) - angle_i(query))) / (Dh/2). Element [h-1 + dy, w-1 + dx] is for a key dx patches to
    the right of the query and dy below. Angles are linear in positions, so it does not matter where the query is.
    """
    (height, width), pairs = grid, angles.shape[-1]
    angles = angles.reshape(*angles.shape[:-2], height, width, pairs)
    dy, dx = np.arange(1 - height, height)[:, None], np.arange(1 - width, width)[None]
    key = angles[..., np.maximum(dy, 0), np.maximum(dx, 0), :]
    query = angles[..., np.maximum(-dy, 0), np.maximum(-dx, 0), :]
    return np.cos(key - query).mean(axis=-1)


def mean_by_offset(scores: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the mean over all pairs of patches with an offset, [..., h*w, h*w] -> [..., 2h-1, 2w-1].

    Of the mean over images of `attention_scores` between patches, this is the effect of content and rotation together.
    Only few pairs have large offsets, all at the image's edges. Axes as in `rope_similarity`.
    """
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    dy, dx = y[None] - y[:, None] + height - 1, x[None] - x[:, None] + width - 1
    offset = (dy * (2 * width - 1) + dx).ravel()
    count = (2 * height - 1) * (2 * width - 1)
    pairs = scores.reshape(-1, offset.size)
    sums = np.stack([np.bincount(offset, row, minlength=count) for row in pairs])
    means = sums / np.bincount(offset, minlength=count)
    return means.reshape(*scores.shape[:-2], 2 * height - 1, 2 * width - 1)


# ---------------------------------------------------------------------------------------------------------
# Filters.


def principal_filters(kernel: np.ndarray, count: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Return principal components of the D filters [P, P, C, D]: [n, P, P, C], and their shares of the variance [n].

    arXiv:2010.11929, figure 7, left, shows the first 28. Each has norm 1, and its largest value is positive.
    """
    filters = np.moveaxis(np.asarray(kernel, np.float64), 3, 0)
    flat = filters.reshape(len(filters), -1)
    _, values, components = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    shares = values**2 / max(np.sum(values**2), 1e-30)
    return (components * np.sign(largest))[:count].reshape(-1, *filters.shape[1:]), shares[:count]


class _Embedding(ViT):
    """The part of a network before its layers; takes the parameters of the full network."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, **options: Any) -> Any:
        """Return tokens [B, N, D], and their rotation."""
        assert not options
        tokens, grid = self._embed(images)
        return tokens, self.rotation(grid)


def _layers(model: ViT, params: Params) -> Iterator[Params]:
    for index in range(model.depth):
        yield jax.tree.map(lambda stacked, index=index: stacked[index], params["encoder"])


def _grid_of(model: ViT, images: jax.Array) -> Grid:
    return images.shape[1] // model.patch_size, images.shape[2] // model.patch_size


def _is_query_or_key(module: nn.Module, method: str) -> bool:
    return method == "__call__" and module.name in ("qkv", "query_norm", "key_norm")
