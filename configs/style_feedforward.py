"""A network that repaints photographs in the style of one picture.

    python train.py --config=configs/style_feedforward.py --config.data.path=PHOTOS --config.style.image=B.jpg

Then python scripts/sample.py --workdir=runs/style_feedforward --content=C.jpg --out=restyled.png. For any style, AdaIN:
docs/style.md.
Source: Johnson et al. 2016 (arXiv:1603.08155), with the network of pytorch/examples, fast_neural_style: batches of 4,
    Adam at 1e-3, 40,000 steps, pictures of 256 pixels, content relu2_2, one style.
Deviations: random filters, which need no file, in place of VGG-16 (--config.style.features=vgg19:FILE.safetensors for
    VGG-19); for its relu3_3 and relu4_3, the last of their blocks, relu3_4 and relu4_4; weights are 1 and 1, for
    normalised channels, and were not searched; no total variation; the picture ends in the paper's tanh.
Reached here: only a small version was run: 150 steps on 1,000 photographs of 64 pixels, style.width 16, style layers
    relu1_2, relu2_2 and relu3_1 of a rug at 128 pixels, in 3.5 minutes (2 cores of an AMD EPYC, other programs
    running): from step 25 to 150, content loss 2.31 to 1.81 and style loss 1.02 to 0.67. Photographs get the rug's
    colours and soft vertical and horizontal streaks; large shapes stay recognisable. 40,000 steps, and VGG-19, have not
    been run.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("style_transfer")
    config.duration = "40000 steps"
    config.data.update(source="folder", image_size=256, channels=3, batch_size=4)
    config.style.update(method="feedforward", size=256, content_layers="relu2_2", gram="per_position")
    config.style.style_layers = "relu1_2,relu2_2,relu3_4,relu4_4"
    config.optimizer.update(learning_rate=1e-3, schedule="constant", clip_norm=0.0)
    config.checkpoint.every = "1000 steps"
    config.log.samples_every = "500 steps"
    return shrink(config) if check_arg(arg) else config
