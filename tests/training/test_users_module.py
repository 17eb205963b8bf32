"""A module that is none of ours is trained on any mesh as on one device, whether or not it names its axes."""

from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gormley_vision.errors import UserError
from gormley_vision.tasks.networks import Network, apply_gradients, new_network
from gormley_vision.training import checkpoints as ckpt
from gormley_vision.training import loop, start

WIDTH, CLASSES = 32, 10


class Net(nn.Module):
    """Two dense layers, with BatchNorm in between; only kernels may have names."""

    named: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of images."""

        def dense(features: int, *names: str) -> nn.Dense:
            kernel_init = nn.initializers.normal(0.1)
            if self.named:
                kernel_init = nn.with_logical_partitioning(kernel_init, names)
            return nn.Dense(features, kernel_init=kernel_init)

        x = dense(WIDTH, "pixels", "mlp")(images.reshape(images.shape[0], -1))
        x = nn.BatchNorm(use_running_average=False)(nn.relu(x))
        return dense(CLASSES, "mlp", "answers")(x)


@flax.struct.dataclass
class State:
    step: jax.Array
    net: Network


class Task:
    """As little as `training/task.py` asks for a step."""

    minibatches = 1

    def __init__(self, named: bool, rule: str) -> None:
        self.net = Net(named)
        self.optimizer = {"adam": partial(optax.adam, 0.1), "sgd": partial(optax.sgd, 0.1, momentum=0.9)}[rule]()

    def init(self, key: jax.Array) -> State:
        variables = self.net.init(key, jnp.zeros((2, 16, 16, 1)))
        return State(jnp.zeros((), jnp.int32), new_network(variables, self.optimizer))

    def train_step(self, state: State, batch: dict, key: jax.Array) -> tuple:
        del key
        images, targets = batch["image"][0] / 255.0, jax.nn.one_hot(batch["label"][0], CLASSES)

        def loss(params):
            variables = {**state.net.variables, "params": params}
            logits, moved = self.net.apply(variables, images, mutable=["batch_stats"])
            return optax.softmax_cross_entropy(logits, targets).mean(), moved["batch_stats"]

        (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(state.net.variables["params"])
        net = apply_gradients(state.net, gradients, stats, self.optimizer)
        return State(state.step + 1, net), {"loss": value}, {}


@pytest.fixture
def steps(lab, tmp_path):
    """A function: (loss, state) after two steps of the user's task on a mesh, and a checkpoint there and back."""

    def run(task, **mesh):
        config = lab.config(vit__heads=8, **{f"mesh__{axis}": size for axis, size in mesh.items()})
        _, batches = lab.open(config)
        folder = tmp_path / "-".join(map(str, mesh.values()))
        folder.mkdir()
        ready = start.prepare(task, batches, config, folder)
        compiled = loop.Step(task, batches.fetch, ready.state_shardings, ready.shardings)
        state = ready.state
        for step in range(2):
            batch = jax.device_put(batches.read(step), ready.shardings.batch)
            state, metrics, _ = compiled(state, ready.resident, batch, ready.key)
        writer = ckpt.Checkpoints(folder / "checkpoints", keep_last=1, keep_every=0)
        writer.save(2, state, ready.meta)
        writer.wait()
        again = start.prepare(task, batches, config, folder)
        assert again.start == 2
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), state, again.state)
        assert jax.tree.map(lambda x: str(x.sharding), again.state) == jax.tree.map(lambda x: str(x.sharding), state)
        return float(metrics["loss"]), state

    return run


def specs(state):
    return {name: tuple(leaf.sharding.spec) for name, leaf in ckpt.flat(state).items()}


@pytest.mark.parametrize(
    ("named", "mesh"),
    [
        (True, {"data": 2, "fsdp": 2, "tensor": 2}),
        (False, {"data": 2, "fsdp": 4, "tensor": 1}),
        pytest.param(True, {"data": 1, "fsdp": 1, "tensor": 8}, marks=pytest.mark.slow),
    ],
)
def test_a_users_module_makes_on_a_mesh_the_steps_of_one_device(steps, named, mesh):
    loss, state = steps(Task(named, "sgd"), data=1)
    loss_here, state_here = steps(Task(named, "sgd"), **mesh)
    assert loss_here == pytest.approx(loss, rel=1e-5)
    arrays, here = ckpt.flat(state), ckpt.flat(state_here)
    assert arrays.keys() == here.keys()
    assert "net/variables/params/Dense_0/kernel" in arrays, "as in a checkpoint of a module without names"
    for name, value in arrays.items():
        np.testing.assert_allclose(here[name], value, rtol=0, atol=3e-5 * max(np.abs(value).max(), 1e-3), err_msg=name)
    where = specs(state_here)
    if mesh["fsdp"] > 1:
        held = sum(leaf.addressable_shards[0].data.size for leaf in here.values())
        assert held < sum(leaf.size for leaf in here.values()) / mesh["fsdp"] * 1.1
    fsdp = "fsdp" if mesh["fsdp"] > 1 else None
    expected = (fsdp, "tensor") if named else (fsdp, None)  # [256, 32]: fsdp on the largest
    for part in ("variables/params", "opt_state/0/trace"):
        assert where[f"net/{part}/Dense_0/kernel"] == expected
        assert where[f"net/{part}/Dense_1/kernel"] == (("tensor", fsdp) if named else (fsdp, None))


def test_adams_moments_lie_like_their_parameter(steps):
    _, state = steps(Task(True, "adam"), data=2, fsdp=2, tensor=2)
    where = specs(state)
    for moment in ("mu", "nu"):
        for layer in ("Dense_0", "Dense_1"):
            assert where[f"net/opt_state/0/{moment}/{layer}/kernel"] == where[f"net/variables/params/{layer}/kernel"]
    assert where["net/variables/params/Dense_1/kernel"] == ("tensor", "fsdp")


def test_tensor_over_a_module_without_names_is_refused(steps):
    with pytest.raises(UserError, match=r"mesh.tensor=2, but mesh.rules shard nothing over it"):
        steps(Task(False, "sgd"), data=2, fsdp=2, tensor=2)


def test_names_that_are_not_one_for_each_axis_are_refused(steps):
    class Careless(nn.Module):
        @nn.compact
        def __call__(self, images):
            scale = self.param("scale", nn.with_logical_partitioning(nn.initializers.ones, ("a", "b")), (4,))
            return images.reshape(len(images), -1)[:, :1] * scale.sum()

    task = Task(True, "sgd")
    task.net = Careless()
    with pytest.raises(UserError, match=r"net/variables/params/scale \[4\]: 2 axis names \(a, b\)"):
        steps(task, data=1)
