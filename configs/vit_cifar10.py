"""A ViT of 0.8 million parameters on CIFAR-10 at 32 pixels.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/vit_cifar10.py

From a folder of images instead: --config.data.source=folder --config.data.path=FOLDER

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929) at the size of s-chh/PyTorch-Scratch-ViT (patch 4, width 128, 6
    layers, 4 heads, 200 epochs; it reports 86.3 %), with RandAugment as there.
Deviations: RoPE-Mixed and mean pooling in place of learned positions and [CLS]; averaged weights; gradient clipping.
Reached here: not run to its end here. The smoke version alone, in tests.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "200 epochs"
    config.data.update(source="tfds", name="cifar10", image_size=32, channels=3, batch_size=128, flip=True)
    config.vit.update(width=128, depth=6, mlp=256, heads=4, patch_size=4)
    config.vit.update(position="none", rope="naver_mixed", pooling="gap")
    config.classification.update(label_smoothing=0.1, shift=4, randaugment_operations=2, randaugment_magnitude=9.0)
    config.classification.ema_half_life = "200k images"
    config.optimizer.update(learning_rate=1e-3, warmup="10 epochs", weight_decay=0.05)
    config.eval.split = "test"
    return shrink(config) if check_arg(arg) else config
