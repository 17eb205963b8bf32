"""What positions do when the context widens from 16 to 256 characters: learned, rotary, and grouped-query attention.

    python scripts/sweep.py --config=configs/sweeps/lm_context.py --workdir=runs/lm_context

600 steps at context 16, then 600 more at 256 from those weights, of nanoGPT's larger net for characters (6 layers, 6
heads, width 192 here, batch 64), on tinyshakespeare.txt in the current folder; 3 seeds. Learned positions keep their 16
rows, and the other 240 are new. Not run yet: hours on a CPU.
"""

from typing import Any

from gormley_vision.sweeps.draws import grid, run_of, zipped

BASE = "configs/lm_shakespeare.py"
FIXED = {
    "duration": "600 steps",
    "data.batch_size": 64,
    "transformer.width": 192,
    "transformer.depth": 6,
    "transformer.heads": 6,
    "transformer.mlp": 768,
    "log.every": "20 steps",
    "eval.every": "100 steps",
    "checkpoint.every": "600 steps",
    "log.samples_every": "600 steps",
}
METRIC = "eval/loss"
HIGHER_IS_BETTER = False


def sweep():
    """24 runs: 4 nets, 3 seeds, two contexts."""
    nets: dict[str, list[Any]] = {
        "transformer.position": ["learned", "none", "learned", "none"],
        "transformer.rope": ["none", "roformer", "none", "roformer"],
        "transformer.kv_heads": [0, 0, 2, 2],
    }
    for net in zipped(nets):
        for seed in grid({"seed": [0, 1, 2]}):
            short = {**net, **seed, "data.context": 16}
            yield short
            yield {**net, **seed, "data.context": 256, "init_from": run_of(short)}
