"""Config keys of two players, generator and discriminator, that several tasks share. Loads no jax."""

from gormley_vision.fields import LARGE, Field

RELATIVISTIC = ("relativistic_paired", "relativistic_average")
OBJECTIVES = ("non_saturating", "saturating", "hinge", "least_squares", "wasserstein", *RELATIVISTIC)


def weight(of: str) -> Field:
    """Return the field of a part of a loss."""
    return Field(0.0, f"weight of {of}; 0 for none", at_least=0, at_most=LARGE)


def optimizer_fields(player: str, learning_rate: float) -> dict[str, Field]:
    """Return the fields of a player's optimizer."""
    section = f"{player}_optimizer"
    return {
        f"{section}.name": Field("adam", "update rule", ("adam", "momentum_sgd", "rmsprop")),
        f"{section}.learning_rate": Field(learning_rate, "step size; 0 freezes the player", at_least=0, at_most=LARGE),
        f"{section}.momentum": Field(
            0.5,
            "Adam's beta1, or the momentum of SGD",
            at_least=0,
            below=1,
            when={f"{section}.name": ("adam", "momentum_sgd")},
        ),
        f"{section}.beta2": Field(
            0.999,
            "decay of the second moment",
            at_least=0,
            below=1,
            when={f"{section}.name": ("adam", "rmsprop")},
        ),
    }
