"""What positions do when the context widens from 16 to 256 characters: learned, rotary, and grouped-query attention.

    python scripts/sweep.py --config=configs/sweeps/lm_context.py --workdir=runs/lm_context

600 steps at context 16, then 600 more at 256 from those weights, of nanoGPT's larger net for characters (6 layers, 6
heads, width 192 here, batch 64), on tinyshakespeare.txt in the current folder; 3 seeds. Learned positions keep their 16
rows, and the other 240 are new. Hours on a CPU. Curves of both parts in one picture each:

    R=runs/lm_context
    for N in 16 256; do python scripts/draw_arms.py --over=steps --metric=eval/loss --out=$R/$N.json \\
        --picture=$R/$N.png --arms "learned=$R/learned_at_$N*" "RoPE=$R/rope_at_$N*" \\
        "learned, grouped=$R/learned_grouped_at_$N*" "RoPE, grouped=$R/rope_grouped_at_$N*"; done
"""

from typing import Any

from gormley_vision.sweeps.draws import run_of

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
    rope: dict[str, Any] = {"transformer.position": "none", "transformer.rope": "roformer"}
    grouped = {"transformer.kv_heads": 2}
    nets = {"learned": {}, "rope": rope, "learned grouped": grouped, "rope grouped": rope | grouped}
    for seed in (0, 1, 2):  # all nets once, before any of them twice
        for name, net in nets.items():
            short = {**net, "NAME": f"{name} at 16", "seed": seed, "data.context": 16}
            yield short
            yield {**net, "NAME": f"{name} at 256", "seed": seed, "data.context": 256, "init_from": run_of(short)}
