"""Inception-v3 of 2015-12-05 beside torch-fidelity's network with the same random weights, and its figures."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from gormley_vision.metrics.classifier_score import ClassifierScore
from gormley_vision.metrics.frechet import frechet_distance, moments_of
from gormley_vision.metrics.kernel_distance import squared_mmd
from gormley_vision.metrics.neighbours import manifold_metrics
from gormley_vision.models.inception import Inception, parameters, resized

torch = pytest.importorskip("torch")


def _stand_in(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return object


@pytest.fixture(scope="module")
def fidelity():
    """torch-fidelity without torchvision, which only its other networks use."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("", ".datasets", ".models", ".transforms", ".transforms.functional"):
            module = types.ModuleType(f"torchvision{name}")
            module.__path__ = []
            module.__getattr__ = _stand_in  # type: ignore[method-assign]
            patch.setitem(sys.modules, f"torchvision{name}", module)
            if name:
                parent, _, child = module.__name__.rpartition(".")
                setattr(sys.modules[parent], child, module)
        yield pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def peer(fidelity, tmp_path_factory):
    """Its network with random weights whose features are of order 1."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    names = ["2048", "logits_unbiased"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = theirs.FeatureExtractorInceptionV3("random", names)
    generator = torch.Generator().manual_seed(0)
    for name, x in net.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            x.copy_(torch.rand(x.shape, generator=generator) + 0.5)
        elif x.ndim > 1:
            x.copy_(torch.randn(x.shape, generator=generator) * (2 / x[0].numel()) ** 0.5)
        elif x.ndim:
            x.copy_(torch.randn(x.shape, generator=generator) * 0.1)
    return net


def test_features_and_probabilities(peer):
    params = unflatten_dict(parameters({k: v.numpy() for k, v in peer.state_dict().items()}), sep="/")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
    with torch.no_grad():
        wanted, logits = peer(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    features, probabilities = jax.jit(Inception().apply)({"params": params}, jnp.asarray(images))
    assert features.shape == (3, 2048)
    np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 1), rtol=1e-3, atol=1e-6)


def test_resizing(fidelity):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as theirs

    images = np.random.default_rng(0).uniform(0, 255, (2, 31, 47, 3)).astype(np.float32)
    wanted = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), size=(299, 299), align_corners=False)
    np.testing.assert_allclose(resized(jnp.asarray(images), 299), wanted.numpy().transpose(0, 2, 3, 1), atol=1e-3)


def test_figures_of_the_same_features(fidelity):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import mmd2
    from torch_fidelity.metric_prc import prc_features_to_metric

    draw = np.random.default_rng(0)
    a = draw.normal(size=(500, 64)) @ draw.normal(size=(64, 64))
    b = 0.3 + draw.normal(size=(400, 64)) @ draw.normal(size=(64, 64))
    ours = frechet_distance(moments_of(a), moments_of(b))
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-6)

    def kernel(x, y):
        return (x @ y.T / 64 + 1) ** 3

    wanted = mmd2(kernel(a[:400], a[:400]), kernel(a[:400], b), kernel(b, b))
    assert squared_mmd(a[:400], b) == pytest.approx(wanted, rel=1e-6)

    metric = prc_features_to_metric(
        torch.from_numpy(b), torch.from_numpy(a), prc_neighborhood=3, prc_batch_size=100, verbose=False
    )
    found = manifold_metrics(a, b)
    assert found.precision == pytest.approx(metric["precision"], abs=1e-6)  # float32 there
    assert found.recall == pytest.approx(metric["recall"], abs=1e-6)  # float32 there

    logits = draw.normal(size=(500, 10)) * 2
    wanted = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    score = ClassifierScore(500)
    score.add(torch.softmax(torch.from_numpy(logits), 1).numpy()[:123])
    score.add(torch.softmax(torch.from_numpy(logits), 1).numpy()[123:])
    assert score.result().mean == pytest.approx(wanted["inception_score_mean"], rel=1e-6)
    assert score.result().deviation == pytest.approx(wanted["inception_score_std"], rel=1e-6)
