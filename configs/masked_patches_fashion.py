"""Pre-training of the Fashion-MNIST ViT without labels: hidden patches are predicted from the others.

    python train.py --config=configs/masked_patches_fashion.py

with the data of configs/vit_fashion_mnist.py. Then fine-tune it:

    python train.py --config=configs/vit_fashion_mnist.py --config.init_from=runs/masked_patches_fashion \
        --config.classification.fresh_head=true --workdir=runs/finetuned

Source: SimMIM (Xie et al. 2021, arXiv:2111.09886): 60 % of patches replaced by a learned token, one linear layer, L1 on
    hidden pixels. With --config.masked_patches.method=mae and ratio=0.75, normalised=true: MAE (He et al. 2021,
    arXiv:2111.06377).
Deviations: the network of configs/vit_fashion_mnist.py, whose patches have 4 pixels and are hidden one by one; Muon.
Reached here: 1,143 steps (1,333 of MAE), then 600 of fine-tuning: 77.6 +- 0.2 % (MAE 79.1 +- 0.4 %) of the test split
    with 600 labels, where training from scratch for as long reaches 76.6 +- 0.4 %. With 6,000 labels or all it is worse
    than from scratch: docs/vit.md. 15 epochs have not been run.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("masked_patches")
    config.duration = "15 epochs"
    config.data.update(source="npz", path="fashion_mnist", batch_size=64, flip=True)
    config.vit.update(width=96, depth=3, mlp=152, heads=4, patch_size=4)
    config.vit.update(position="none", rope="naver_axial", pooling="gap")
    config.masked_patches.update(shift=1)
    config.optimizer.update(name="muon", learning_rate=3e-3, momentum=0.95, warmup="300 steps", weight_decay=0.05)
    config.eval.update(split="test", every="1 epochs")
    return shrink(config) if check_arg(arg) else config
