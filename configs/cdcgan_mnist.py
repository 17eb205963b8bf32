"""Class-conditional DCGAN on 5,000 real MNIST digits: the label is an input of both players.

    python train.py --config=configs/cdcgan_mnist.py

Source: Mirza & Osindero 2014 (arXiv:1411.1784) on the networks and optimizer of Radford et al. 2015
    (arXiv:1511.06434): 64 filters, Adam 2e-4, beta1 0.5.
Deviations: the label enters once, beside the noise and as feature maps beside the image (Newmu/dcgan_code
    repeats it at every layer); 28 pixels, batch 32 and an averaged generator as in dcgan_mnist.
Reached here: a classifier of real digits agrees with the label asked for on 97.3 to 97.7 % of 2,000 samples
    (seeds 0, 1, 2; that classifier is right on 95.4 % of held-out real digits), by
    `python scripts/label_agreement.py --workdir=runs/cdcgan_mnist --num=2000`: results/cdcgan_mnist.json.
    About 3 minutes on 2 cores of an AMD EPYC, other programs running, jax 0.10.2. Grid, one class a row:
    docs/images/cdcgan_mnist.png.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    config.gan.conditional = True
    config.log.samples = 100
    return shrink(config) if check_arg(arg) else config
