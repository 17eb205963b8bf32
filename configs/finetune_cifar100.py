"""Fine-tuning an ImageNet ViT-S/16 on CIFAR-100 at 384 pixels.

    python scripts/prepare_data.py cifar100     (once: downloads, needs the `prepare` extra)
    python train.py --config=configs/finetune_cifar100.py --config.init_from=runs/vit_s16_imagenet

The head is dropped and begins at zero; positions, where they are learned, are resized to the larger grid.

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929), section 4.1 and appendix B.1.1: SGD with momentum 0.9, batch 512,
    cosine, no weight decay, clipping at norm 1, 384 pixels; 10,000 steps and a rate of 0.01 from its grid.
Deviations: starts from ImageNet-1k, where the paper has ImageNet-21k or JFT.
Reached here: not run here. The smoke version alone, in tests.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds, from scratch."""
    config = default_config("classification")
    config.init_from = "runs/vit_s16_imagenet"
    config.classification.fresh_head = True
    config.duration = "10000 steps"
    config.compute_dtype = "bfloat16"
    config.data.update(source="tfds", name="cifar100", image_size=384, channels=3, batch_size=512, flip=True)
    config.data.update(placement="stream", workers=16, resize_filter="bicubic")
    config.vit.update(width=384, depth=12, mlp=1536, heads=6, patch_size=16)  # S/16, as it was trained
    config.vit.update(position="sincos2d", pooling="gap", representation=384, scan=True)
    config.optimizer.update(name="momentum_sgd", learning_rate=0.01, warmup="500 steps")
    config.eval.update(split="test", every="1000 steps")
    config.checkpoint.every = "1000 steps"
    return shrink(config) if check_arg(arg) else config
