"""Style transfer by optimisation: a picture with the content of one file and the style of another.

    python train.py --config=configs/style_gatys.py --config.style.content=A.jpg --config.style.image=B.jpg

Then python scripts/sample.py --workdir=runs/style_gatys --out=picture.png. Without files it restyles a drawing.
Source: Gatys et al. 2015 (arXiv:1508.06576): L-BFGS on the pixels, features of the content, Gram matrices of the style.
    With --config.style.features=vgg19:FILE.safetensors (docs/style.md) the network is theirs; with lite0:FILE it is
    EfficientNet-Lite0, whose weights are easier to come by.
Deviations: random filters, which need no file, in place of VGG-19; they stop at block 4 and keep relu3_1, since deeper
    ones know no more. Channels are normalised by the two pictures. A start from the content and total variation are
    those of later code. Weights are for these filters, and were chosen by eye after two runs.
Reached here: a photograph and a rug at --config.style.size=160, 60 steps in 2.5 minutes (2 cores of an AMD EPYC, other
    programs running): style loss 1.440 to 0.030, content loss 0 to 0.051. The rug's red, blue and white came into the
    photograph, with coarse noise; its pattern did not. With EfficientNet-Lite0's features pieces of it did, in 400
    steps, 2.5 minutes on one core (docs/style.md has the command). VGG-19's weights have not been run: not at hand.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("style_transfer")
    config.duration = "60 steps"
    config.data.update(source="fake", image_size=8, batch_size=1)  # the loop wants some; nothing reads them
    config.mesh.data = 1  # one picture does not divide over devices
    config.style.update(method="gatys", size=256, optimizer="lbfgs", gram="per_position")
    config.style.update(content_layers="relu3_1", style_layers="relu1_1,relu2_1,relu3_1,relu4_1")
    config.style.update(content_weight=0.02, style_weight=1.0, tv_weight=0.1)
    config.checkpoint.every = "20 steps"
    config.log.update(every="5 steps", samples_every="20 steps")
    return shrink(config) if check_arg(arg) else config
