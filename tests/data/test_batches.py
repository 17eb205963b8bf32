import threading
import time

import numpy as np
import pytest
from PIL import Image

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
        "minibatches": 3,
    }


def take(batches, start, count):
    """`count` whole batches (of this process) from step `start` on, through `pieces` and `fetch`."""
    pieces = batches.pieces(start)
    result = [batches.fetch(batches.resident, next(pieces)) for _ in range(count)]
    pieces.close()
    return [{name: np.asarray(array) for name, array in batch.items()} for batch in result]


def same(left, right):
    return all(
        set(a) == set(b) == {"image", "label"}
        and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and (a[k] == b[k]).all() for k in a)
        for a, b in zip(left, right, strict=True)
    )


def test_steps_read_consecutive_positions_of_the_stream(numbered):
    batches = open_batches(**numbered)
    assert (batches.length, batches.batch_size, batches.minibatches) == (N, 8, 3)
    assert batches.image_shape == (4, 4, 1)
    assert batches.class_names == tuple("0123456")
    for step in (0, 1, 2, 1000):
        piece = batches.read(step)
        ids = example_ids(7, N, step * 24, 24).reshape(3, 8)
        assert piece["image"].dtype == np.uint8
        assert piece["image"].shape == (3, 8, 4, 4, 1)
        assert (piece["image"] == ids[..., None, None, None]).all()
        assert piece["label"].dtype == np.int32
        assert (piece["label"] == ids % 7).all()


def test_placements_give_the_same_bits_from_any_step(numbered):
    host, device, stream = (
        open_batches(**numbered | {"placement": placement}) for placement in ("host", "device", "stream")
    )
    assert same(take(host, 3, 6), take(device, 3, 6))
    assert same(take(host, 3, 6), take(stream, 3, 6))
    assert same(take(host, 0, 9)[3:], take(host, 3, 6))
    assert same([stream.read(4)], [host.read(4)])
    no_threads = open_batches(**numbered | {"placement": "stream", "workers": 0})
    assert same(take(host, 3, 6), take(no_threads, 3, 6))
    assert host.resident == stream.resident == {}
    assert host.sha256 == device.sha256 != stream.sha256


def test_device_pieces_are_indices_and_fetch_traces(numbered):
    import jax

    batches = open_batches(**numbered | {"placement": "device"})
    piece = batches.read(5)
    assert {name: (array.dtype.name, array.shape) for name, array in piece.items()} == {"index": ("int32", (3, 8))}
    assert batches.resident["image"].shape == (N, 4, 4, 1)
    assert batches.resident["label"].dtype == np.int32
    batch = jax.jit(batches.fetch)(jax.device_put(batches.resident), jax.device_put(piece))
    host = open_batches(**numbered)
    assert same([{name: np.asarray(array) for name, array in batch.items()}], [host.read(5)])


@pytest.mark.parametrize("placement", ["host", "device", "stream"])
def test_hosts_side_by_side_equal_one_host(numbered, placement):
    numbered = numbered | {"placement": placement}
    whole = take(open_batches(**numbered), 1, 4)
    for count in (2, 4, 8):
        hosts = [
            take(open_batches(**numbered | {"columns": columns}), 1, 4)
            for columns in np.split(np.arange(numbered["batch_size"]), count)
        ]
        joined = [
            {name: np.concatenate([part[name] for part in parts], axis=1) for name in ("image", "label")}
            for parts in zip(*hosts, strict=True)
        ]
        assert same(whole, joined)


def test_a_host_decodes_the_examples_of_its_columns_alone(numbered, monkeypatch):
    decoded = []
    original = ArraySource.__getitem__
    monkeypatch.setattr(ArraySource, "__getitem__", lambda self, i: decoded.append(i) or original(self, i))
    columns = np.arange(2, 4)
    open_batches(**numbered | {"placement": "stream", "columns": columns}).read(1)
    assert decoded == example_ids(7, N, 24, 24).reshape(3, 8)[:, columns].ravel().tolist()


def test_every_epoch_visits_every_example_once_across_steps_that_straddle(numbered):
    batches = open_batches(**numbered)
    stream = np.concatenate([batch["image"][..., 0, 0, 0].ravel() for batch in take(batches, 0, 10)])
    epochs = stream.reshape(8, N)  # 10 steps of 24 are 8 epochs of 30
    assert (np.sort(epochs, axis=1) == np.arange(N)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_the_seed_changes_the_order(numbered):
    one, two = (open_batches(**numbered | {"seed": seed}).read(0)["image"] for seed in (1, 2))
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
        open_batches(**numbered | changes)


@pytest.mark.parametrize("changes", [{"minibatches": 0}, {"batch_size": 0}])
def test_nonsense_from_the_caller_is_refused(numbered, changes):
    with pytest.raises(ValueError, match="minibatches="):
        open_batches(**numbered | changes)


def test_close_stops_the_reading_thread(numbered, monkeypatch):
    read = Batches.read
    monkeypatch.setattr(Batches, "read", lambda self, step: time.sleep(0.1) or read(self, step))
    before = set(threading.enumerate())
    pieces = open_batches(**numbered).pieces(0)
    next(pieces)
    assert set(threading.enumerate()) - before
    pieces.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(StopIteration):
        next(pieces)


def test_close_stops_the_stream(numbered, monkeypatch):
    reads, getitem = [], ArraySource.__getitem__
    monkeypatch.setattr(ArraySource, "__getitem__", lambda self, i: reads.append(time.sleep(0.005)) or getitem(self, i))
    before = set(threading.enumerate())
    pieces = open_batches(**numbered | {"placement": "stream", "workers": 1}).pieces(0)
    next(pieces)
    threads = set(threading.enumerate()) - before
    assert threads
    pieces.close()
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
    pieces = open_batches(**settings | {"placement": "stream"}).pieces(0)
    with pytest.raises(UserError, match=r"set/5.png"):
        list(zip(range(2), pieces, strict=False))
    with pytest.raises(UserError, match=r"set/5.png"):
        open_batches(**settings | {"placement": "host"})


def test_an_error_of_the_reading_thread_surfaces_as_it_is(numbered, monkeypatch):
    batches = open_batches(**numbered)
    read = type(batches).read

    def broken(self, step):
        if step == 3:
            raise OSError("disk gone")
        return read(self, step)

    monkeypatch.setattr(type(batches), "read", broken)
    pieces = batches.pieces(0)
    assert len([next(pieces) for _ in range(3)]) == 3
    with pytest.raises(OSError, match=r"^disk gone$"):
        next(pieces)


def test_digits_in_batches_are_the_digits_of_the_source(settings, source_settings):
    digits = {"source": "mnist_5k", "image_size": 28, "channels": 1}
    calls = []
    batches = open_batches(**settings | digits, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5000, 5000)
    assert batches.class_names == tuple("0123456789")
    piece, source = batches.read(0), open_source(**source_settings | digits)
    for column, example in enumerate(example_ids(7, 5000, 0, 16)):
        image, label = source[example]
        assert (piece["image"][0, column] == image).all()
        assert piece["label"][0, column] == label
    # The same examples now and in a year, on any machine: resumes rest on it.
    assert batches.sha256 == "8e10baeb635020f6369af3e19a38032f2c57262954152b8b64210b027d56157a"
