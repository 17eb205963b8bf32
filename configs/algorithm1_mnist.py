"""Algorithm 1 of Goodfellow et al. to the letter, on 5,000 real MNIST digits.

    python train.py --config=configs/algorithm1_mnist.py

Source: Goodfellow et al. 2014 (arXiv:1406.2661), Algorithm 1: k = 1 discriminator update on a fresh minibatch,
    then the generator descends log(1 - D(G(z))) on fresh noise against the new discriminator; momentum SGD.
Deviations: DCGAN networks instead of maxout and dense layers, constant momentum 0.5 and learning rates (the
    authors' released code anneals both, ascends log D(G(z)), and updates both players at once: see
    gan.objective and gan.simultaneous).
Reached here: mostly recognisable digits (docs/images/algorithm1_mnist.png) after 4,688 steps, about 3 minutes on
    2 cores of an AMD EPYC, other programs running, jax 0.10.2, seed 0.
    The rates matter: with 0.02 for both players the discriminator wins within 100 steps, D(G(z)) falls below
    0.001, and log(1 - D) has no gradient left, which is why section 3 of the paper offers log D instead.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    config.gan.discriminator_steps = 1
    config.gan.objective = "saturating"
    for optimizer in (config.generator_optimizer, config.discriminator_optimizer):
        optimizer.name = "momentum_sgd"
        optimizer.momentum = 0.5
    config.discriminator_optimizer.learning_rate = 0.001
    config.generator_optimizer.learning_rate = 0.02
    return shrink(config) if check_arg(arg) else config
