"""ViT-22B: 21.7 billion parameters in 48 parallel layers. To plan; nobody trains it on ImageNet-1k.

    python scripts/plan.py --config=configs/vit_22b.py --topology=v5p:4x4x8 --config.mesh.fsdp=32
    python train.py --config=configs/vit_22b.py --config.mesh.fsdp=32

Source: Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters" (arXiv:2302.05442): parallel
    attention and MLP, normalised queries and keys, no biases of queries, keys and values, norms without bias and
    centering, attention pooling.
Deviations: Adam for Adafactor, cosine for the reciprocal square root; ImageNet-1k for JFT-4B; 4 images a chip of 128.
Reached here: not run here, which takes a pod. Compiled for one: docs/scaling.md.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "177000 steps"
    config.compute_dtype = "bfloat16"
    config.data.update(source="tfds", name="imagenet2012", image_size=224, channels=3, batch_size=512, flip=True)
    config.data.update(placement="stream", workers=64, resize_filter="bilinear")
    config.vit.update(width=6144, depth=48, mlp=24576, heads=48, patch_size=14)
    config.vit.update(parallel=True, qk_norm=True, norm="rms", qkv_bias=False, pooling="map", scan=True)
    config.optimizer.update(learning_rate=1e-3, warmup="10000 steps", weight_decay=0.03)
    config.eval.update(split="validation", every="10000 steps")
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
