"""ViT-S/16 on ImageNet-1k from scratch, 90 epochs: the plain recipe.

    python scripts/prepare_data.py imagenet2012     (once, from the archives that image-net.org gives to those who sign)
    python train.py --config=configs/vit_s16_imagenet.py

Source: Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k" (arXiv:2205.01580), big_vision's vit_s16_i1k.py,
    which reports 76.5 % after 90 epochs (6 to 7 hours on a TPU v3-8).
Deviations: crops are cut on the device out of the centre 224x224 square rather than out of the full file; weight decay
    is written as AdamW's, which the rate multiplies (0.1 here is big_vision's 0.0001).
Reached here: not run here: 1.3 million images need an accelerator. The full-size step is traced, the smoke version run.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "90 epochs"
    config.compute_dtype = "bfloat16"
    config.data.update(source="tfds", name="imagenet2012", image_size=224, channels=3, batch_size=1024, flip=True)
    config.data.update(placement="stream", workers=64, resize_filter="bilinear")
    config.vit.update(width=384, depth=12, mlp=1536, heads=6, patch_size=16)  # S/16
    config.vit.update(position="sincos2d", pooling="gap", representation=384, scan=True)
    config.classification.update(crop_min_area=0.05, randaugment_operations=2, randaugment_magnitude=10.0, mixup=0.2)
    config.optimizer.update(learning_rate=1e-3, warmup="10000 steps", weight_decay=0.1)
    config.eval.update(split="validation", every="5 epochs")
    config.checkpoint.every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
