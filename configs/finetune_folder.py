"""Fine-tuning a small ViT on your own folder of images.

    python train.py --config=configs/finetune_folder.py --config.init_from=runs/vit_cifar10 --config.data.path=photos

`photos/train/CLASS/*.jpg` and `photos/test/CLASS/*.jpg`, any sizes. The net is that of configs/vit_cifar10.py: for
another, set `vit` as that run did. `--config.classification.only_head=true` trains a linear probe instead, and
`--config.data.image_size=48` a larger grid.

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), section 3.2: the head begins at zero, positions are resized.
Deviations: AdamW with layer-wise decay (BEiT, arXiv:2106.08254) in place of SGD: less depends on the rate.
Reached here: not run to its end here. What the weights become at another size and with other classes is a test.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, from scratch."""
    config = default_config("classification")
    config.init_from = "runs/vit_cifar10"
    config.classification.fresh_head = True
    config.duration = "20 epochs"
    config.data.update(source="folder", path="photos", image_size=32, channels=3, batch_size=64, flip=True)
    config.vit.update(width=128, depth=6, mlp=256, heads=4, patch_size=4)
    config.vit.update(position="none", rope="naver_mixed", pooling="gap")
    config.classification.update(label_smoothing=0.1, shift=4)
    config.optimizer.update(learning_rate=5e-4, warmup="1 epochs", weight_decay=0.05, layer_decay=0.75)
    config.eval.split = "test"
    return shrink(config) if check_arg(arg) else config
