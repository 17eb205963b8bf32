"""ViT-L/16 on ImageNet-1k: the paper's large model, to plan and to run on a pod slice.

    python scripts/plan.py --config=configs/vit_l16_imagenet.py --topology=v5p:4x4x2
    python train.py --config=configs/vit_l16_imagenet.py --config.mesh.fsdp=4

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), tables 1 and 3 (the row of ViT-L/16 on ImageNet-21k).
Deviations: on ImageNet-1k; cosine for the linear decay; the layers are scanned.
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
    config.vit.update(width=1024, depth=24, mlp=4096, heads=16, patch_size=16)  # L/16
    config.vit.update(representation=1024, dropout=0.1, scan=True)
    config.classification.crop_min_area = 0.05
    config.optimizer.update(learning_rate=1e-3, warmup="10000 steps", weight_decay=0.03)
    config.eval.update(split="validation", every="5 epochs")
    config.checkpoint.every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
