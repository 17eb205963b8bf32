"""Class-conditional DCGAN on 5,000 real MNIST digits: the label is an input of both players.

    python train.py --config=configs/cdcgan_mnist.py

Source: Mirza & Osindero 2014 (arXiv:1411.1784) on the networks and optimizer of configs/dcgan_mnist.py.
Deviations: the label enters once, beside the noise and as feature maps beside the image (Newmu/dcgan_code
    repeats it at every layer); as in dcgan_mnist otherwise.
Reached here: @@cdcgan_mnist@@
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
