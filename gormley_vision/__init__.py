"""gormley_vision: RoPE, transformers, Vision Transformers and GANs in JAX and Flax.

`gormley_vision.restore(RUN)` reads a trained run. Importing the package itself loads no jax.
"""

from typing import Any

from gormley_vision.libtpu import quieten

__all__ = ["restore"]

quieten()  # before anything starts jax


def __getattr__(name: str) -> Any:
    if name == "restore":
        from gormley_vision.sampling import restore

        return restore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
