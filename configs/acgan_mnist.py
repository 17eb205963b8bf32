"""AC-GAN on 5,000 real MNIST digits: the discriminator also tells the class.

    python train.py --config=configs/acgan_mnist.py

Source: Odena et al. 2016 (arXiv:1610.09585), section 3: both players descend the errors of the classes of real and fake
    images; Adam 2e-4, beta1 0.5 (appendix A).
Deviations: DCGAN's nets at 28 pixels, without dropout; an averaged generator.
Reached here: not run to its end here.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("gan")
    config.duration = "30 epochs"
    config.data.batch_size = 32
    config.gan.conditional = True
    config.discriminator.conditioning = "classifier"
    config.log.samples = 100
    return shrink(config) if check_arg(arg) else config
