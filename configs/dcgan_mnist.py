"""DCGAN on 5,000 real MNIST digits at 28 pixels: the README's first command.

    python train.py --config=configs/dcgan_mnist.py

Source: Radford et al. 2015 (arXiv:1511.06434), in the 4x4-kernel form of pytorch/examples/dcgan: Adam with
    beta1 0.5, batch normalisation, N(0, 0.02) weights, non-saturating loss.
Deviations: 28 pixels, so two fractionally-strided layers, 7 to 14 to 28; batch 32, for more updates in few
    minutes; for as good digits in a third of the time, half the filters (32), and Adam 2e-3 for the
    generator and 5e-4 for the discriminator, where the paper has 2e-4; samples come from an averaged generator.
Reached here: mostly recognisable digits (docs/images/dcgan_mnist.png, seed 0) after 4,375 steps. Seeds 0, 1, 2, with
    the recipe before (64 filters, Adam 2e-4, 30 epochs) in brackets: Fréchet distance to real digits in a judge's
    features 2.6 to 2.7 (3.4 to 3.8; real digits: 0.3); of 5,000 samples the judge is sure of 69 to 71 % (68 %;
    real digits: 94 %), by `python benchmarks/digit_quality.py --workdir=RUN`: results/dcgan_mnist_recipe.json.
    80 to 95 s of processor time (270 to 285); 1 min 8 s from the command to the end with nothing else running (4 min
    6 s, other programs running for most of it), on 2 cores of an Intel Xeon (320 GFLOP/s in a large product), jax
    0.10.2. A machine where it took 9 minutes should need 3: by the ratio of processor times, not measured.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "28 epochs"
    config.data.batch_size = 32
    config.generator.width = 32
    config.discriminator.width = 32
    config.generator_optimizer.learning_rate = 2e-3
    config.discriminator_optimizer.learning_rate = 5e-4
    return shrink(config) if check_arg(arg) else config
