"""ViT-H/14 on ImageNet-1k: the paper's huge model, to plan and to run on a pod slice.

    python scripts/plan.py --config=configs/vit_h14_imagenet.py --topology=v5p:4x4x4
    python train.py --config=configs/vit_h14_imagenet.py --config.mesh.fsdp=16

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), tables 1 and 3 (the row of ViT-H/14).
Deviations: on ImageNet-1k, not JFT-300M; cosine for the linear decay; layers are scanned, and computed again for
    their gradients.
Reached here: not run here, which takes a pod. Compiled for one: docs/scaling.md.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "90 epochs"
    config.compute_dtype = "bfloat16"
    config.data.update(source="tfds", name="imagenet2012", image_size=224, channels=3, batch_size=4096, flip=True)
    config.data.update(placement="stream", workers=64, resize_filter="bilinear")
    config.vit.update(width=1280, depth=32, mlp=5120, heads=16, patch_size=14)  # H/14
    config.vit.update(representation=1280, scan=True)
    config.classification.crop_min_area = 0.05
    config.optimizer.update(learning_rate=3e-4, warmup="10000 steps", weight_decay=0.1)
    config.eval.update(split="validation", every="5 epochs")
    config.checkpoint.every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
