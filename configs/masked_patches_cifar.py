"""Masked autoencoding of CIFAR-10 by ViT-Ti/2: three quarters of 256 patches are hidden.

    python scripts/prepare_data.py cifar10     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/masked_patches_cifar.py

From a folder of images instead: --config.data.source=folder --config.data.path=FOLDER. Then fine-tune it:

    python train.py --config=configs/vit_cifar10.py --config.init_from=runs/masked_patches_cifar \\
        --config.classification.fresh_head=true --config.vit.width=192 --config.vit.depth=12 --config.vit.mlp=768 \\
        --config.vit.heads=3 --config.vit.patch_size=2 --config.vit.position=sincos2d --config.vit.rope=none

Source: MAE (He et al. 2021, arXiv:2111.06377) at the size of IcarusWizard/MAE: 12 layers of width 192, a decoder of 4
    layers of the same width, raw pixels, 2,000 epochs in batches of 4,096 at 1.5e-4 for each 256; there 89.77 % after
    fine-tuning without augmentation, 74.13 % from scratch.
Deviations: mean pooling in fine-tuning, so no [CLS]; fixed sine-cosine positions as in MAE; that code learns them.
Reached here: 2,000 epochs are for an accelerator, not run. The smoke version alone, in tests.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("masked_patches")
    config.duration = "2000 epochs"
    config.data.update(source="tfds", name="cifar10", image_size=32, channels=3, batch_size=4096)
    config.vit.update(width=192, depth=12, mlp=768, heads=3, patch_size=2, position="sincos2d", pooling="gap")
    config.masked_patches.update(method="mae", ratio=0.75, decoder_width=192, decoder_depth=4, decoder_heads=3)
    config.optimizer.update(learning_rate=2.4e-3, beta2=0.95, warmup="200 epochs", weight_decay=0.05)
    config.eval.update(split="test", every="50 epochs")
    config.log.samples_every = "50 epochs"
    config.checkpoint.every = "50 epochs"
    return shrink(config) if check_arg(arg) else config
