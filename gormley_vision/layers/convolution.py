"""Strided and fractionally-strided convolutions, lowered by platform.

A convolution is a trilinear form <output, convolve(input, kernel)> of its input [B, H, W, C], its kernel
[k, k, C, O] and its output [B, h, w, O]. Its three partial gradients are the three operations below,
and the derivatives of each are the other two:

    forward          inputs, kernel  -> outputs     a strided convolution
    input_gradient   outputs, kernel -> inputs      a fractionally-strided ("transposed") convolution
    kernel_gradient  inputs, outputs  -> kernel

So one rule for each gives reverse-mode derivatives of any order (gradient penalties need two), and each can
have a fast lowering for its platform. On other platforms than the CPU all three are XLA's own. On the CPU, XLA runs
dilated convolutions poorly (jax-ml/jax#23783), and those with few channels, so

- an input gradient with stride s becomes s*s stride-1 convolutions, one for each phase of the input
  (the sub-pixel form, Shi et al. 2016, arXiv:1609.05158, section 2.2), or, for a few channels such as an
  image's, one matrix product and shifted adds;
- a convolution with stride 1 to a few channels is computed as the input gradient of the reversed one, and its kernel's
  gradient with the sides exchanged: k*k copies of the few channels, not of the many, are multiplied;
- where there are fewer output pixels than output channels, as deep in a U-Net at batch 1, the kernel is what is large,
  and all three are matrix products of k*k-pixel patches with the kernel as it lies in memory: XLA's convolutions
  transpose it each time, which was a third of pix2pix's step on one pair of 128 pixels (by jax's profiler, on two cores
  of an AMD EPYC);
- the gradient of a 1x1 kernel is a matrix product of the maps as they lie, which XLA's convolution transposes.

`benchmarks/train_step.py`, `gan_recipes.py` and `image_to_image_step.py` time whole steps. Forward-mode differentiation
is not supported.
"""

import dataclasses
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from gormley_vision.layers.partition import gathered, mesh_platform, split_by_image

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 16  # below this, one matrix product beats s*s convolutions on the CPU
_DENSE_CHANNELS = 32  # of groups that are convolved together on the CPU


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What the arrays' shapes do not give: stride, padding (low, high) of both axes, and the size of the input.

    `shared` are the kernel's axes that may be sharded, in order of preference: input channels, or, if these are an
    image's few, output channels.
    """

    stride: int
    padding: tuple[int, int]
    height: int
    width: int
    shared: tuple[int, int]

    def output_size(self, kernel_size: int) -> tuple[int, int]:
        """Return height and width of the output."""
        size = [(side + sum(self.padding) - kernel_size) // self.stride + 1 for side in (self.height, self.width)]
        if min(size) < 1:
            raise ValueError(
                f"a {kernel_size}x{kernel_size} kernel with padding {self.padding} does not fit into "
                f"{self.height}x{self.width} pixels"
            )
        return size[0], size[1]


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Cross-correlate `x` [B, H, W, C] with `kernel` [k, k, C, O], as in `lax.conv_general_dilated`.

    Returns [B, h, w, O] with h = (H + sum(padding) - k) // stride + 1; `padding` is (low, high) in pixels.
    """
    geometry = Geometry(stride, padding, x.shape[1], x.shape[2], shared=(2, 3))
    geometry.output_size(kernel.shape[0])
    return _forward(geometry, x, kernel)


def convolve_transposed(y: jax.Array, kernel: jax.Array, *, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Convolve with fractional stride: `y` [B, h, w, O], `kernel` [k, k, C, O] -> [B, h*stride, w*stride, C].

    The gradient of `convolve` with respect to its input (Dumoulin & Visin 2016, arXiv:1603.07285, ch. 4);
    `kernel` and `padding` are those of that convolution.
    """
    geometry = Geometry(stride, padding, y.shape[1] * stride, y.shape[2] * stride, shared=(3, 2))
    if geometry.output_size(kernel.shape[0]) != y.shape[1:3]:
        raise ValueError(f"padding {padding} does not multiply the size by {stride} for kernel {kernel.shape}")
    return _input_gradient(geometry, y, kernel)


def convolve_groups(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlate `x` [B, H, W, C] with `kernel` [k, k, c, C], k odd: the c channels of each group by themselves.

    Keeps the size, with zeros outside. On a CPU groups are joined to `_DENSE_CHANNELS` channels, with zeros in the
    kernel between them: several times the products, but XLA's gradients of grouped convolutions took 20 to 40 times as
    long there (192 channels in groups of 16, 32 images of 16x16: forward and backward 4.3 s, joined 0.11 s; with the
    gradient of a gradient 8.6 s and 0.19 s; 2 busy cores of an AMD EPYC, convolutions still YNNPACK's). To 32 rather
    than 64: forward, on 32x32, 12 ms and not 22. Without joining R3GAN's step at 96 channels is no faster, and compiles
    for 15 s and not 12 (by hand, the two cores alone, Eigen's convolutions). Elsewhere it is XLA's own.
    """
    channels, size, width = x.shape[-1], kernel.shape[0], kernel.shape[2]
    pad = (size // 2, size // 2)
    x, kernel = _maps(x), gathered(kernel, ())
    if not _on_cpu():
        y = lax.conv_general_dilated(
            x, kernel, (1, 1), (pad, pad), dimension_numbers=_DIMENSIONS, feature_group_count=channels // width
        )
        return _maps(y)
    joined = width * max(1, _DENSE_CHANNELS // width)
    sizes = [min(joined, channels - first) for first in range(0, channels, joined)]
    outputs = []
    # Split, not sliced: the gradient of slices is a sum of as many padded maps, that of a split their concatenation.
    for maps, part in zip(lax.split(x, sizes, axis=3), lax.split(kernel, sizes, axis=3), strict=True):
        groups = part.shape[3] // width
        own = jnp.kron(jnp.eye(groups, dtype=kernel.dtype), jnp.ones((width, width), kernel.dtype))
        dense = jnp.tile(part, (1, 1, groups, 1)) * own[None, None]
        outputs.append(convolve(maps, dense, stride=1, padding=pad))
    return jnp.concatenate(outputs, axis=-1)


# ---------------------------------------------------------------------------------------------------------
# The three operations and their derivatives.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(geometry: Geometry, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    lowering = _xla_forward
    if _on_cpu() and _kernel_is_large(geometry, inputs.shape[0], kernel.shape):
        lowering = _patches_product
    elif _on_cpu() and _has_few_outputs(geometry, kernel.shape):
        lowering = _reversed_shifted_adds
    return _maps(lowering(geometry, _maps(inputs), gathered(kernel, geometry.shared)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(geometry: Geometry, outputs: jax.Array, kernel: jax.Array) -> jax.Array:
    lowering = _xla_input_gradient
    if _on_cpu():
        one_product = kernel.shape[2] < _FEW_CHANNELS or _kernel_is_large(geometry, outputs.shape[0], kernel.shape)
        has_empty_phases = kernel.shape[0] < geometry.stride
        lowering = _shifted_adds if one_product or has_empty_phases else _phases
    return _maps(lowering(geometry, _maps(outputs), gathered(kernel, geometry.shared)))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kernel_gradient(geometry: Geometry, size: int, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    shape = size, size, inputs.shape[3], outputs.shape[3]
    lowering = _xla_kernel_gradient
    if _on_cpu() and (size == 1 or _kernel_is_large(geometry, inputs.shape[0], shape)):
        lowering = _patches_kernel_gradient
    elif _on_cpu() and _has_few_outputs(geometry, shape):
        lowering = _reversed_kernel_gradient
    return gathered(lowering(geometry, size, _maps(inputs), _maps(outputs)), geometry.shared)


def _on_cpu() -> bool:
    """Return whether what is traced runs on a CPU: by the mesh, or without one by jax's default.

    Not `lax.platform_dependent`: a value that depends on no input, such as its index or `jnp.zeros`, must not appear in
    the three operations. In gradients of gradients through a map of recomputed microbatches, jax (0.10.2 and 0.12) then
    confuses their residuals.
    """
    return (mesh_platform() or jax.default_backend()) == "cpu"


def _kernel_is_large(geometry: Geometry, batch: int, shape: tuple[int, ...]) -> bool:
    """Return whether a batch has fewer output pixels than a kernel of this shape has output channels."""
    height, width = geometry.output_size(shape[0])
    return batch * height * width < shape[3]


def _has_few_outputs(geometry: Geometry, shape: tuple[int, ...]) -> bool:
    """Return whether a kernel of this shape leads to a few channels, by a convolution that has a `_reverse`."""
    return geometry.stride == 1 and shape[3] < _FEW_CHANNELS and max(geometry.padding) < shape[0]


def _maps(x: jax.Array) -> jax.Array:
    """Constrain feature maps [B, H, W, C] to be sharded only by image."""
    return split_by_image(x, unsplit=2)


def _forward_bwd(geometry, residuals, outputs):
    inputs, kernel = residuals
    return _input_gradient(geometry, outputs, kernel), _kernel_gradient(geometry, kernel.shape[0], inputs, outputs)


def _input_gradient_bwd(geometry, residuals, inputs):
    outputs, kernel = residuals
    return _forward(geometry, inputs, kernel), _kernel_gradient(geometry, kernel.shape[0], inputs, outputs)


def _kernel_gradient_bwd(geometry, size, residuals, kernel):
    inputs, outputs = residuals
    return _input_gradient(geometry, outputs, kernel), _forward(geometry, inputs, kernel)


_forward.defvjp(lambda geometry, *residuals: (_forward(geometry, *residuals), residuals), _forward_bwd)
_input_gradient.defvjp(
    lambda geometry, *residuals: (_input_gradient(geometry, *residuals), residuals), _input_gradient_bwd
)
_kernel_gradient.defvjp(
    lambda geometry, size, *residuals: (_kernel_gradient(geometry, size, *residuals), residuals), _kernel_gradient_bwd
)


# ---------------------------------------------------------------------------------------------------------
# Lowerings.


def _xla_forward(geometry: Geometry, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    strides, padding = (geometry.stride,) * 2, (geometry.padding,) * 2
    return lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=_DIMENSIONS)


def _xla_input_gradient(geometry: Geometry, outputs: jax.Array, kernel: jax.Array) -> jax.Array:
    shape = (outputs.shape[0], geometry.height, geometry.width, kernel.shape[2])
    inputs = jax.ShapeDtypeStruct(shape, outputs.dtype)
    return jax.linear_transpose(lambda x: _xla_forward(geometry, x, kernel), inputs)(outputs)[0]


def _xla_kernel_gradient(geometry: Geometry, size: int, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((size, size, inputs.shape[3], outputs.shape[3]), inputs.dtype)
    return jax.linear_transpose(lambda w: _xla_forward(geometry, inputs, w), kernel)(outputs)[0]


def _padded(x: jax.Array, *axes: tuple[int, int]) -> jax.Array:
    """Append zeros (before, after) to the axes of `x` from the second one on."""
    widths = [(0, 0), *axes, *[(0, 0)] * (x.ndim - 1 - len(axes))]
    return lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in widths])


def _patches(geometry: Geometry, size: int, inputs: jax.Array) -> jax.Array:
    """Return what each output pixel sees: [B*h*w, size*size*C]."""
    (height, width), stride = geometry.output_size(size), geometry.stride
    padded = _padded(inputs, geometry.padding, geometry.padding)
    taps = [
        padded[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.stack(taps, axis=3).reshape(-1, size * size * inputs.shape[3])


def _patches_product(geometry: Geometry, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    size, features = kernel.shape[0], kernel.shape[3]
    outputs = _patches(geometry, size, inputs) @ kernel.reshape(-1, features)
    return outputs.reshape(inputs.shape[0], *geometry.output_size(size), features)


def _patches_kernel_gradient(geometry: Geometry, size: int, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    features = outputs.shape[3]
    kernel = lax.dot_general(_patches(geometry, size, inputs), outputs.reshape(-1, features), (((0,), (0,)), ((), ())))
    return kernel.reshape(size, size, inputs.shape[3], features)


def _phases(geometry: Geometry, outputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute input pixels s*n + a as a stride-1 convolution of the output with the taps i = a + low (mod s)."""
    s, low, size = geometry.stride, geometry.padding[0], kernel.shape[0]

    def taps(phase: int, side: int, output_side: int) -> tuple[slice, tuple[int, int]]:
        first = (phase + low) % s
        count = len(range(first, size, s))
        shift = (phase + low - first) // s
        return slice(first, None, s), (count - 1 - shift, -(-side // s) - output_side + shift)

    rows = []
    for a in range(s):
        row_taps, row_padding = taps(a, geometry.height, outputs.shape[1])
        columns = []
        for b in range(s):
            column_taps, column_padding = taps(b, geometry.width, outputs.shape[2])
            part = lax.rev(kernel[row_taps, column_taps], (0, 1)).swapaxes(2, 3)  # [t, t, O, C]
            columns.append(
                lax.conv_general_dilated(
                    outputs, part, (1, 1), (row_padding, column_padding), dimension_numbers=_DIMENSIONS
                )
            )
        rows.append(jnp.stack(columns, axis=3))  # [B, h, w, s, C]
    inputs = jnp.stack(rows, axis=2)  # [B, h, s, w, s, C]
    batch, h, _, w, _, channels = inputs.shape
    return inputs.reshape(batch, h * s, w * s, channels)[:, : geometry.height, : geometry.width]


def _shifted_adds(geometry: Geometry, outputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute each output pixel's k*k patch in one matrix product, and add patches where they overlap.

    The k taps of an axis are grouped into ceil(k / s) blocks of s: block u of all pixels, concatenated, is the
    input shifted by s*u, so a block is added with one pad.
    """
    s, low, (size, _, channels, features) = geometry.stride, geometry.padding[0], kernel.shape
    batch, h, w, _ = outputs.shape
    blocks = -(-size // s)
    grown = _padded(kernel.transpose(2, 0, 1, 3), *[(0, blocks * s - size)] * 2).transpose(1, 2, 0, 3)
    matrix = grown.reshape(blocks, s, blocks, s, channels, features)
    if _kernel_is_large(geometry, batch, kernel.shape):  # the kernel first: XLA transposes the second factor
        product = lax.dot_general(matrix, outputs, (((5,), (3,)), ((), ())))
        patches = product.transpose(5, 6, 7, 0, 1, 2, 3, 4)
    else:
        patches = lax.dot_general(outputs, matrix, (((3,), (5,)), ((), ())))  # [B, h, w, u, s, v, s, C]
    moved = []
    for u in range(blocks):
        for v in range(blocks):
            block = patches[:, :, :, u, :, v].transpose(0, 1, 3, 2, 4, 5)  # [B, h, s, w, s, C]
            rows, columns = (u, blocks - 1 - u), (v, blocks - 1 - v)
            moved.append(_padded(block, rows, (0, 0), columns))
    inputs = reduce(jnp.add, moved).reshape(batch, (h + blocks - 1) * s, (w + blocks - 1) * s, channels)
    missing = [
        max(0, low + side - have)
        for side, have in zip((geometry.height, geometry.width), inputs.shape[1:3], strict=True)
    ]
    inputs = _padded(inputs, *((0, pixels) for pixels in missing))
    return inputs[:, low : low + geometry.height, low : low + geometry.width]


def _reverse(geometry: Geometry, size: int) -> Geometry:
    """Return the stride-1 convolution from the outputs of another to its inputs, by the reversed kernel."""
    low, high = (size - 1 - pad for pad in geometry.padding)
    height, width = geometry.output_size(size)
    return dataclasses.replace(geometry, padding=(low, high), height=height, width=width)


def reversed_kernel(kernel: jax.Array) -> jax.Array:
    """Turn a kernel [k, k, C, O] by half a circle, with its sides exchanged: [k, k, O, C]."""
    return lax.rev(kernel, (0, 1)).swapaxes(2, 3)


def _reversed_shifted_adds(geometry: Geometry, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    return _shifted_adds(_reverse(geometry, kernel.shape[0]), inputs, reversed_kernel(kernel))


def _reversed_kernel_gradient(geometry: Geometry, size: int, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    return reversed_kernel(_patches_kernel_gradient(_reverse(geometry, size), size, outputs, inputs))
