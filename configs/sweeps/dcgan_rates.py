"""Step sizes of DCGAN's players, drawn at random around the paper's 0.0002, on 5,000 MNIST digits.

    python scripts/sweep.py --config=configs/sweeps/dcgan_rates.py --jobs=2

No figure of a GAN's losses says how good its pictures are: sweep.html puts the final samples side by side.
"""

from gormley_vision.sweeps.draws import drawn, log_uniform

BASE = "configs/dcgan_mnist.py"
METRIC = "loss/generator"
HIGHER_IS_BETTER = False
RATES = ("generator_optimizer.learning_rate", "discriminator_optimizer.learning_rate")


def sweep():
    """12 runs."""
    yield from drawn(12, seed=0, distributions={key: log_uniform(2e-5, 2e-3) for key in RATES})
