"""A ViT of at most 210,000 parameters on Fashion-MNIST, with rotary positions.

    python train.py --config=configs/vit_fashion_mnist.py

once Debian's files are prepared:

    apt-get install dataset-fashion-mnist
    python scripts/prepare_data.py fashion_mnist --idx=/usr/share/datasets/fashion-mnist --out=fashion_mnist

Source: pre-norm ViT (Dosovitskiy et al. 2020, arXiv:2010.11929), mean pooling and short recipe of Beyer et al. 2022
    (arXiv:2205.01580), RoPE-Mixed (Heo et al. 2024, arXiv:2403.13298).
Deviations: patches of 4 pixels, 3 layers of 96 channels (204,274 parameters); flips and shifts by a pixel in place of
    RandAugment and mixup; Muon for the layers' matrices: with Adam, four epochs end 2 points lower.
Reached here: not run to its end yet: no figure.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "60 epochs"
    config.data.update(source="npz", path="fashion_mnist", batch_size=64, flip=True)
    config.vit.update(width=96, depth=3, mlp=152, heads=4, patch_size=4)
    config.vit.update(position="none", rope="naver_mixed", pooling="gap")
    config.classification.update(label_smoothing=0.1, shift=1, ema_half_life="60k images")
    config.optimizer.update(name="muon", learning_rate=3e-3, momentum=0.95, warmup="300 steps", weight_decay=0.05)
    config.eval.update(split="test", every="1 epochs")
    return shrink(config) if check_arg(arg) else config
