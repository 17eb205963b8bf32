"""Extractors from files and runs, and what is said of files that are none."""

import dataclasses
import hashlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from gormley_vision.errors import UserError
from gormley_vision.extractors import open_extractor
from gormley_vision.models import cifar_resnet, inception


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """ResNet-20's file with random weights, and them."""
    draw = np.random.default_rng(0)
    arrays = {}
    for name, shape in cifar_resnet.shapes(3).items():
        fan = np.prod(shape[1:]) or 1
        arrays[name] = (draw.normal(size=shape) * (2 / fan) ** 0.5).astype(np.float32)
        if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            arrays[name] = draw.uniform(0.5, 1.5, shape).astype(np.float32)
    file = tmp_path_factory.mktemp("weights") / "resnet20.npz"
    np.savez(file, **arrays)
    return file, arrays


def plain_resnet(arrays, images):
    """The network in NumPy, one image and one output at a time where it convolves."""

    def convolved(kernel, x, stride):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        out = np.zeros((-(-x.shape[0] // stride), -(-x.shape[1] // stride), len(kernel)))
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                patch = padded[i * stride : i * stride + 3, j * stride : j * stride + 3]
                out[i, j] = np.einsum("hwc,ochw->o", patch, kernel)
        return out

    def normalized(name, x):
        mean, var = arrays[f"{name}.running_mean"], arrays[f"{name}.running_var"]
        return (x - mean) / np.sqrt(var + 1e-5) * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    found = []
    for image in images:
        x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        x = np.maximum(normalized("bn1", convolved(arrays["conv1.weight"], x, 1)), 0)
        for stage in (1, 2, 3):
            for block in range(3):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = np.maximum(normalized(f"{name}.bn1", convolved(arrays[f"{name}.conv1.weight"], x, stride)), 0)
                y = normalized(f"{name}.bn2", convolved(arrays[f"{name}.conv2.weight"], y, 1))
                if stride == 2:
                    zeros = np.zeros((*y.shape[:2], x.shape[-1] // 2))
                    x = np.concatenate([zeros, x[::2, ::2], zeros], axis=-1)
                x = np.maximum(x + y, 0)
        found.append(x.mean((0, 1)))
    return np.array(found)


def test_a_cifar_resnet_is_the_network_written_plainly(resnet):
    file, arrays = resnet
    extractor = open_extractor(f"cifar_resnet:{file}")
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    features, probabilities = jax.jit(extractor.features)(extractor.weights, images)
    wanted = plain_resnet(arrays, images)
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    logits = wanted @ arrays["linear.weight"].T + arrays["linear.bias"]
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, softmax / softmax.sum(1, keepdims=True), rtol=1e-2, atol=1e-5)
    assert "ResNet-20" in extractor.name
    assert not extractor.is_fid
    with pytest.raises(UserError, match=r"32x32 pixels, and these have 28x28: pass another extractor$"):
        extractor.refuse((28, 28, 3))
    with pytest.raises(UserError, match=r"another extractor, or --config.data.image_size=32$"):
        extractor.refuse((28, 28, 3), "--config.data.image_size")
    with pytest.raises(UserError, match="reads grey images, and these are colour: pass another extractor"):
        dataclasses.replace(extractor, channels=1).refuse((32, 32, 3))


def test_grey_images_are_repeated_and_colour_is_refused_by_a_grey_network(resnet):
    extractor = open_extractor(f"cifar_resnet:{resnet[0]}")
    grey = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 1), np.uint8)
    extractor.refuse((32, 32, 1))
    given = extractor.features(extractor.weights, jnp.asarray(grey))[0]
    wanted = extractor.features(extractor.weights, jnp.repeat(jnp.asarray(grey), 3, axis=-1))[0]
    np.testing.assert_array_equal(given, wanted)


@pytest.fixture(scope="module")
def inception_arrays():
    """Zeros in the shapes of the network, with PyTorch's names."""
    shapes = jax.eval_shape(inception.Inception().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8))
    arrays = {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
    for name, x in flatten_dict(shapes["params"], sep="/").items():
        unit, _, part = name.rpartition("/")
        if part == "kernel":
            height, width, inputs, outputs = x.shape
            arrays[f"{unit.replace('/', '.')}.conv.weight"] = np.zeros((outputs, inputs, height, width), np.float32)
            for vector in ("weight", "bias", "running_mean", "running_var"):
                arrays[f"{unit.replace('/', '.')}.bn.{vector}"] = np.zeros(outputs, np.float32)
    return arrays


def test_only_the_published_weights_make_fid(inception_arrays, tmp_path):
    for source, published in (("6726825d" + "0" * 56, True), ("", False)):
        save_file(inception_arrays, tmp_path / "file.safetensors", metadata={"source_sha256": source})
        extractor = open_extractor(f"inception:{tmp_path / 'file.safetensors'}")
        assert extractor.is_fid is published
        assert ("unknown" in extractor.name) is not published


def test_its_parameters_are_those_of_the_paper(inception_arrays):
    # torchvision's Inception-v3 without its auxiliary head has 23,834,568, of which 2,049,000 are its classifier's.
    trunk = sum(x.size for name, x in inception_arrays.items() if not name.startswith("fc.") and "running" not in name)
    assert trunk == 23_834_568 - 2_049_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vgg:file", "extractor 'vgg:file': name one of inception:FILE"),
        ("run:", "name one of"),
        ("cifar_resnet:{folder}/absent.npz", "cannot be read"),
        ("cifar_resnet:{folder}/text.npz", "cannot be read"),
        ("cifar_resnet:{folder}/array.npy", "cannot be read"),
        ("cifar_resnet:{folder}", "cannot be read"),
        ("cifar_resnet:{folder}/other.npz", "other weights than this network"),
        ("inception:{folder}/text.npz", "cannot be read"),
        ("inception:{folder}/other.safetensors", "is not Inception-v3 of 2015-12-05"),
        ("run:{folder}", "no run in|no undamaged checkpoint|no checkpoint"),
    ],
)
def test_what_is_no_network(tmp_path, text, message):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 3)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=message):
        open_extractor(text.format(folder=tmp_path))


def test_a_file_of_another_hash_is_not_converted(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"not it")
    command = [sys.executable, "scripts/convert_inception.py", tmp_path / "weights.pth", tmp_path / "out.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert hashlib.sha256(b"not it").hexdigest() in done.stderr
    assert not (tmp_path / "out.safetensors").exists()
