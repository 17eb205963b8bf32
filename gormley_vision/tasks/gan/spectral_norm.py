"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957): each matrix divided by its largest singular value.

The value is estimated by power iteration, whose vector is part of the state (algorithm 1): one iteration an update of
the player, from its own parameters, before all passes of that update. So real, fake and penalised images meet the same
matrices, the opponent's update iterates nothing, and neither microbatches nor meshes change anything. Deviation: their
code iterates once in every pass through the net.

A kernel is a matrix by the names of its axes (gormley_vision/axes.py): of a convolution, with its window on the side of
its inputs, as theirs is. Biases and norms are left as they are.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gormley_vision.axes import Parameter, map_parameters, sides
from gormley_vision.errors import UserError
from gormley_vision.randomness import named_key

Vectors = dict[str, Any]  # as the parameters, without those that are no matrices: [stacked, outputs]


class Matrix(NamedTuple):
    """Which axes of a parameter are stacked, inputs, and outputs."""

    stacked: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def matrices(params: Any) -> dict[tuple[str, ...], Matrix]:
    """Return the matrices of abstract parameters in flax's boxes, by path.

    Raises:
        UserError: a parameter's axes have no known names.
    """

    def matrix(parameter: Parameter) -> Matrix | None:
        if parameter.names is None:
            if len(parameter.shape) < 2:
                return None
            raise UserError(f"discriminator.spectral_norm: {parameter} does not name its axes (gormley_vision/axes.py)")
        found = sides(parameter.names)
        if len(found) < 2:
            return None
        outputs = found[-1]
        inputs = tuple(axis for side in found[:-1] for axis in side)
        return Matrix(tuple(i for i in range(len(parameter.shape)) if i not in inputs + outputs), inputs, outputs)

    found = flatten_dict(map_parameters(matrix, params), is_leaf=lambda _, x: isinstance(x, Matrix))
    return {path: matrix for path, matrix in found.items() if matrix is not None}


def start(params: Any, found: dict[tuple[str, ...], Matrix], key: jax.Array) -> Vectors:
    """Return random vectors of length 1, for parameters without boxes."""
    flat = flatten_dict(params)
    vectors = {
        path: _unit(jax.random.normal(named_key(key, "/".join(path)), _as_matrix(flat[path], matrix).shape[::2]))
        for path, matrix in found.items()
    }
    return unflatten_dict(vectors)


def iterated(params: Any, found: dict[tuple[str, ...], Matrix], vectors: Vectors) -> Vectors:
    """Return the vectors after one power iteration."""
    flat, before = flatten_dict(params), flatten_dict(vectors)
    after = {}
    for path, matrix in found.items():
        weights = jax.lax.stop_gradient(_as_matrix(flat[path], matrix))
        left = _unit(jnp.einsum("sio,so->si", weights, before[path]))
        right = jnp.einsum("sio,si->so", weights, left)
        # A matrix of zeros, as R3GAN's blocks start with, says nothing of its direction.
        after[path] = jnp.where(jnp.any(right != 0, axis=-1, keepdims=True), _unit(right), before[path])
    return unflatten_dict(after)


def normalized(params: Any, found: dict[tuple[str, ...], Matrix], vectors: Vectors) -> Any:
    """Return the parameters, matrices divided by their estimated values; a gradient flows through the value, too.

    A matrix of zeros is left as it is.
    """
    flat, right = flatten_dict(params), flatten_dict(vectors)
    divided = {
        path: flat[path] / _by_parameter(jnp.where(value > 1e-12, value, 1), flat[path], found[path])
        for path, value in _values(flat, found, right).items()
    }
    return unflatten_dict(flat | divided)


def singular_values(params: Any, found: dict[tuple[str, ...], Matrix], vectors: Vectors) -> dict[str, jax.Array]:
    """Return the estimated largest singular value of each matrix, [stacked]."""
    values = _values(flatten_dict(params), found, flatten_dict(vectors))
    return {"/".join(path): value for path, value in values.items()}


def _values(flat: Any, found: dict[tuple[str, ...], Matrix], right: Any) -> dict[tuple[str, ...], jax.Array]:
    values = {}
    for path, matrix in found.items():
        weights = _as_matrix(flat[path], matrix)
        product = jnp.einsum("sio,so->si", weights, right[path])
        left = jax.lax.stop_gradient(_unit(product))
        values[path] = jnp.einsum("si,si->s", left, product)
    return values


def _as_matrix(parameter: jax.Array, matrix: Matrix) -> jax.Array:
    """Return [stacked, inputs, outputs]."""
    stacked, inputs, _ = (_length(parameter, axes) for axes in matrix)
    return parameter.transpose(*(axis for axes in matrix for axis in axes)).reshape(stacked, inputs, -1)


def _length(parameter: jax.Array, axes: tuple[int, ...]) -> int:
    length = 1
    for axis in axes:
        length *= parameter.shape[axis]
    return length


def _by_parameter(values: jax.Array, parameter: jax.Array, matrix: Matrix) -> jax.Array:
    """Reshape [stacked] to broadcast against the parameter."""
    return values.reshape([size if axis in matrix.stacked else 1 for axis, size in enumerate(parameter.shape)])


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / (jnp.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)
