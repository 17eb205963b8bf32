"""A small classifier on 5,000 real MNIST digits: the second task through the same loop.

    python train.py --config=configs/classifier_mnist.py

Source: none; the body of DCGAN's discriminator with ten outputs, cross-entropy, Adam.
Deviations: none.
Reached here: 97 to 100 % of a minibatch right in the last epochs of five, in 8 s from command to end, on 2 cores of
    an AMD EPYC, jax 0.10.2, seed 0. These are training images: the loop does not evaluate yet.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("classification")
    config.duration = "5 epochs"
    config.checkpoint.every = "1 epochs"
    return shrink(config) if check_arg(arg) else config
