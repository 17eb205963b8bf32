"""What the processor can do: the floor that benchmarks are held to."""

import time

import jax
import jax.numpy as jnp


def matrix_product_gflops() -> float:
    """The best rate of a 2048 x 2048 float32 product: what the processor can do."""
    x = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(seconds) / 1e9
