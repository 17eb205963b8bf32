"""What each of this project's parts does to nanoGPT's small language model, each alone, then together.

    python scripts/sweep.py --config=configs/sweeps/lm_recipe.py --workdir=runs/lm_recipe --jobs=2

The same tokens (2,000 steps of 12 windows) and at most the same parameters: the gated MLP has 2/3 of the channels, and
rotary positions no table; QK-norm alone adds 256 of 804,096. On tinyshakespeare.txt in the current folder; 3 seeds.
"""

from typing import Any

from gormley_vision.sweeps.draws import grid

BASE = "configs/lm_shakespeare.py"
FIXED = {"eval.every": "2000 steps", "log.samples_every": "2000 steps", "checkpoint.every": "2000 steps"}
METRIC = "eval/loss"
HIGHER_IS_BETTER = False

MUON = {"optimizer.name": "muon", "optimizer.momentum": 0.95, "optimizer.learning_rate": 1e-2}
ROPE = {"transformer.position": "none", "transformer.rope": "roformer"}
GATED = {"transformer.activation": "swiglu", "transformer.mlp": 341}
TO_ZERO = {"optimizer.final_rate": 0.0}
CHANGES: dict[str, dict[str, Any]] = {
    "nanoGPT's": {},
    "RoPE": ROPE,
    "SwiGLU": GATED,
    "Muon": MUON,
    "rate 3e-3": {"optimizer.learning_rate": 3e-3},
    "all": {**ROPE, **GATED, **MUON, **TO_ZERO, "transformer.norm": "rms", "transformer.qk_norm": True},
    "ReLU squared": {"transformer.activation": "relu_squared"},
    "RMSNorm": {"transformer.norm": "rms"},
    "QK-norm": {"transformer.qk_norm": True},
    "rate to 0": TO_ZERO,
}


def sweep():
    """30 runs."""
    for change in CHANGES.values():
        for seed in grid({"seed": [0, 1, 2]}):
            yield {**change, **seed}
