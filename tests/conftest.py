"""Strict numerics for every test, and eight virtual devices for those that shard."""

import gc
import importlib.metadata
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # its older code for fusions compiles in 0.6 of the time
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"  # later ones know no such flag, and would abort
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiling is most of a test's time. Real processes, which test bits, are compiled as usual
# (but in training/test_hosts.py, where each compiles for itself).
jax.config.update("jax_disable_most_optimizations", True)

# Traced functions fill the heap with objects that outlive their tests: walking these takes 5 % of the suite's time.
gc.freeze()
gc.set_threshold(200_000, 20, 100)
