"""The first GAN, as its authors released it: fully connected nets with maxout, on 5,000 real MNIST digits.

    python train.py --config=configs/goodfellow2014_mnist.py

Source: Goodfellow et al. 2014 (arXiv:1406.2661) and their code (github.com/goodfeli/adversarial, mnist.yaml). The code
    is not the paper's Algorithm 1: the generator ascends log D(G(z)), and both gradients are taken at the same
    parameters with the same noise. For Algorithm 1 to the letter see algorithm1_mnist.py. SGD at 0.1, divided by
    1.000004 an update down to 1e-6, which takes 2,878,237 updates; momentum 0.5 to 0.7 over 250 epochs. The
    discriminator descends half of the sum of both errors, so its rate here is half of theirs.
Deviations: 5,000 digits rather than 50,000; 28 pixels with sides in [-1, 1] outside of the nets; the generator's last
    bias starts at 0; samples come from an averaged generator.
Reached here: recognisable digits of all kinds, with specks, at the end (12,500 steps). Before, the discriminator wins:
    at step 2,500 the monitor's verdict is D_overpowering, at 4,500 samples are ones and nines; by 10,000 the game has
    recovered by itself, so do not stop it early. Seed 0, about 6 minutes on one core of an AMD EPYC, another program
    running, jax 0.10.2.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "250 epochs"
    config.data.batch_size = 100
    config.gan.simultaneous = True
    config.gan.shared_fakes = True
    config.generator.architecture = "dense"
    config.generator.width = 1200
    config.generator.initial_range = 0.05
    config.generator.latent = "uniform"
    config.discriminator.architecture = "dense"
    config.discriminator.width = 240
    config.discriminator.pieces = 5
    config.discriminator.initial_range = 0.005
    config.discriminator.input_dropout = 0.2
    config.discriminator.dropout = 0.5
    schedules = []
    for player, rate in (("generator", 0.1), ("discriminator", 0.05)):
        config[f"{player}_optimizer"].update(name="momentum_sgd", learning_rate=rate, beta2=0.999)
        last = rate * 1e-5
        schedules.append(f"{player}_optimizer.learning_rate = 0: {rate}, 2878237 steps: {last:g} exponential")
        schedules.append(f"{player}_optimizer.momentum = 0: 0.5, 250 epochs: 0.7 linear")
    config.gan.schedules = "; ".join(schedules)
    config.log.samples_every = "10 epochs"
    config.checkpoint.every = "50 epochs"
    return shrink(config) if check_arg(arg) else config
