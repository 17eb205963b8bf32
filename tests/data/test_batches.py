import threading
import time

import numpy as np
import pytest
from PIL import Image

from gormley_vision.data import batches as batches_module
from gormley_vision.data.array_sources import ArraySource
from gormley_vision.data.batches import Batches, open_batches
from gormley_vision.data.order import example_ids
from gormley_vision.data.sources import open_source
from gormley_vision.errors import UserError

N = 30


@pytest.fixture
def numbered(settings, tmp_path):
    """Settings for an npz set of 30 grey images; image i is filled with i and has label i % 7."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None], (N, 4, 4))
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(N) % 7)
    return settings | {
        "source": "npz",
        "path": str(tmp_path / "set.npz"),
        "image_size": 4,
        "channels": 1,
        "batch_size": 8,
    }


def opened(data, seed=7, minibatches=3, **options):
    return open_batches(seed=seed, minibatches=minibatches, data=data, **options)


def take(batches, start, count):
    """`count` whole batches (of this process) from step `start` on, through `from_step` and `fetch`."""
    ahead = batches.from_step(start)
    result = [batches.fetch(batches.resident, next(ahead)) for _ in range(count)]
    ahead.close()
    return [{name: np.asarray(array) for name, array in batch.items()} for batch in result]


def same(left, right):
    return all(
        set(a) == set(b) == {"image", "label"}
        and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and (a[k] == b[k]).all() for k in a)
        for a, b in zip(left, right, strict=True)
    )


def test_steps_read_consecutive_positions_of_the_stream(numbered):
    batches = opened(numbered)
    assert (batches.length, batches.batch_size, batches.minibatches) == (N, 8, 3)
    assert batches.image_shape == (4, 4, 1)
    assert batches.class_names == tuple("0123456")
    for step in (0, 1, 2, 1000):
        batch = batches.read(step)
        ids = example_ids(7, N, step * 24, 24).reshape(3, 8)
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape == (3, 8, 4, 4, 1)
        assert (batch["image"] == ids[..., None, None, None]).all()
        assert batch["label"].dtype == np.int32
        assert (batch["label"] == ids % 7).all()


def test_placements_give_the_same_bits_from_any_step(numbered):
    host, device, stream = (opened(numbered | {"placement": placement}) for placement in ("host", "device", "stream"))
    assert same(take(host, 3, 6), take(device, 3, 6))
    assert same(take(host, 3, 6), take(stream, 3, 6))
    assert same(take(host, 0, 9)[3:], take(host, 3, 6))
    assert same([stream.read(4)], [host.read(4)])
    no_threads = opened(numbered | {"placement": "stream", "workers": 0})
    assert same(take(host, 3, 6), take(no_threads, 3, 6))
    assert host.resident == stream.resident == {}
    assert host.sha256 == device.sha256 != stream.sha256


def test_the_device_is_read_by_indices_and_fetch_traces(numbered):
    import jax

    batches = opened(numbered | {"placement": "device"})
    batch = batches.read(5)
    assert {name: (array.dtype.name, array.shape) for name, array in batch.items()} == {"index": ("int32", (3, 8))}
    assert batches.resident["image"].shape == (N, 4, 4, 1)
    assert batches.resident["label"].dtype == np.int32
    batch = jax.jit(batches.fetch)(jax.device_put(batches.resident), jax.device_put(batch))
    host = opened(numbered)
    assert same([{name: np.asarray(array) for name, array in batch.items()}], [host.read(5)])


@pytest.mark.parametrize("placement", ["host", "device", "stream"])
def test_hosts_side_by_side_equal_one_host(numbered, placement):
    numbered = numbered | {"placement": placement}
    whole = take(opened(numbered), 1, 4)
    for count in (2, 4, 8):
        hosts = [
            take(opened(numbered, columns=columns), 1, 4)
            for columns in np.split(np.arange(numbered["batch_size"]), count)
        ]
        joined = [
            {name: np.concatenate([part[name] for part in parts], axis=1) for name in ("image", "label")}
            for parts in zip(*hosts, strict=True)
        ]
        assert same(whole, joined)


def test_a_host_decodes_the_examples_of_its_columns_alone(numbered, monkeypatch):
    decoded, columns = [], np.arange(2, 4)

    class Recorded(ArraySource):  # its own class: threads of earlier tests may still read ahead
        def __getitem__(self, index):
            decoded.append(index)
            return super().__getitem__(index)

    def open_recorded(data):
        source = open_source(data)
        source.__class__ = Recorded
        return source

    monkeypatch.setattr(batches_module, "open_source", open_recorded)
    opened(numbered | {"placement": "stream"}, columns=columns).read(1)
    assert decoded == example_ids(7, N, 24, 24).reshape(3, 8)[:, columns].ravel().tolist()


def test_any_features_come_in_every_placement_on_any_number_of_hosts(settings, everything, monkeypatch):
    monkeypatch.setattr(batches_module, "open_source", lambda data: everything())
    source, data = everything(), settings | {"batch_size": 4}
    for placement in ("host", "device", "stream"):
        whole = opened(data | {"placement": placement})
        assert (whole.features, whole.class_names, whole.image_shape) == (source.features, ("a", "b"), (4, 4, 3))
        halves = [opened(data | {"placement": placement}, columns=columns) for columns in ([0, 1], [2, 3])]
        for step, batch in zip((2, 3), take(whole, 2, 2), strict=True):
            ids = example_ids(7, 10, step * 12, 12).reshape(3, 4)
            assert batch.keys() == source.features.keys()
            for name, array in batch.items():
                expected = np.stack([source[i][name] for i in ids.ravel()])
                assert array.dtype == expected.dtype
                assert (array == expected.reshape(3, 4, *source.features[name].shape)).all()
            parts = [take(half, step, 1)[0] for half in halves]
            assert all((np.concatenate([p[name] for p in parts], 1) == array).all() for name, array in batch.items())
        padded = list(whole.padded())  # 10 examples in batches of 4
        assert [batch["mask"].tolist() for batch in padded] == [[True] * 4, [True] * 4, [True, True, False, False]]
        for name in source.features:
            read = np.concatenate([batch[name][batch["mask"]] for batch in padded])
            assert (read == np.stack([source[i][name] for i in range(10)])).all()
        assert whole.classes_present() == (None if placement == "stream" else {0, 1})


@pytest.mark.parametrize("placement", ["host", "stream"])
def test_a_feature_that_the_task_needs_and_the_set_lacks_is_refused(numbered, placement):
    numbered = numbered | {"placement": placement}
    opened(numbered, needs={"image": "image", "label": "label"})
    with pytest.raises(UserError, match=r"needs the feature 'label' of kind tokens .*offers image .*label .*--config"):
        opened(numbered, needs={"label": "tokens"})


def test_names_that_batches_use_themselves_are_refused(settings, everything, monkeypatch):
    everything.features = {"mask": everything.features["there"]}
    monkeypatch.setattr(batches_module, "open_source", lambda data: everything())
    for placement in ("host", "stream"):
        with pytest.raises(UserError, match="named 'mask'"):
            opened(settings | {"placement": placement})


def test_an_unlabelled_set_has_no_label_at_all(numbered, tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((9, 4, 4), np.uint8))
    for placement in ("host", "device", "stream"):
        batches = opened(numbered | {"placement": placement})
        assert take(batches, 0, 1)[0].keys() == {"image"}
        assert (batches.class_names, batches.classes_present()) == ((), set())


def test_every_epoch_visits_every_example_once_across_steps_that_straddle(numbered):
    batches = opened(numbered)
    stream = np.concatenate([batch["image"][..., 0, 0, 0].ravel() for batch in take(batches, 0, 10)])
    epochs = stream.reshape(8, N)  # 10 steps of 24 are 8 epochs of 30
    assert (np.sort(epochs, axis=1) == np.arange(N)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_the_seed_changes_the_order(numbered):
    one, two = (opened(numbered, seed=seed).read(0)["image"] for seed in (1, 2))
    assert (one != two).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": "devise"}, "did you mean 'device'.*--config.data.placement=device"),
        ({"workers": -1}, "--config.data.workers="),
        ({"source": "nzp"}, "did you mean 'npz'"),
    ],
)
def test_mistakes_are_named_with_what_to_type(numbered, changes, message):
    with pytest.raises(UserError, match=message):
        opened(numbered | changes)


def test_nonsense_from_the_caller_is_refused(numbered):
    with pytest.raises(ValueError, match="minibatches="):
        opened(numbered, minibatches=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        opened(numbered | {"batch_size": 0})


def test_close_stops_the_reading_thread(numbered, monkeypatch):
    read = Batches.read
    monkeypatch.setattr(Batches, "read", lambda self, step: time.sleep(0.1) or read(self, step))
    before = set(threading.enumerate())
    ahead = opened(numbered).from_step(0)
    next(ahead)
    assert set(threading.enumerate()) - before
    ahead.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(StopIteration):
        next(ahead)


def test_close_stops_the_stream(numbered, monkeypatch):
    reads, getitem = [], ArraySource.__getitem__
    monkeypatch.setattr(ArraySource, "__getitem__", lambda self, i: reads.append(time.sleep(0.005)) or getitem(self, i))
    before = set(threading.enumerate())
    ahead = opened(numbered | {"placement": "stream", "workers": 1}).from_step(0)
    next(ahead)
    threads = set(threading.enumerate()) - before
    assert threads
    ahead.close()
    for thread in threads:
        thread.join(timeout=10)
    assert set(threading.enumerate()) == before
    # Four steps of 24 were asked for; what had not begun when the stream was closed was not read.
    assert 24 <= len(reads) < 96


def test_a_broken_image_surfaces_as_it_is_in_stream_and_while_caching(settings, tmp_path):
    for index in range(8):
        path = tmp_path / f"set/{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
    (tmp_path / "set/5.png").write_bytes(b"\x89PNG broken")
    settings = settings | {"source": "folder", "path": str(tmp_path / "set"), "batch_size": 4}
    ahead = opened(settings | {"placement": "stream"}).from_step(0)
    with pytest.raises(UserError, match=r"set/5.png"):
        list(zip(range(2), ahead, strict=False))
    with pytest.raises(UserError, match=r"set/5.png"):
        opened(settings | {"placement": "host"})


def test_an_error_of_the_reading_thread_surfaces_as_it_is(numbered, monkeypatch):
    batches = opened(numbered)
    read = type(batches).read

    def broken(self, step):
        if step == 3:
            raise OSError("disk gone")
        return read(self, step)

    monkeypatch.setattr(type(batches), "read", broken)
    ahead = batches.from_step(0)
    assert len([next(ahead) for _ in range(3)]) == 3
    with pytest.raises(OSError, match=r"^disk gone$"):
        next(ahead)


def test_digits_in_batches_are_the_digits_of_the_source(settings):
    digits = {"source": "mnist_5k", "image_size": 28, "channels": 1}
    calls = []
    batches = opened(settings | digits, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5000, 5000)
    assert batches.class_names == tuple("0123456789")
    batch, source = batches.read(0), open_source(settings | digits)
    for column, example in enumerate(example_ids(7, 5000, 0, 16)):
        assert (batch["image"][0, column] == source[example]["image"]).all()
        assert batch["label"][0, column] == source[example]["label"]
    # The same examples now and in a year, on any machine: resumes rest on it.
    assert batches.sha256 == "8e10baeb635020f6369af3e19a38032f2c57262954152b8b64210b027d56157a"
