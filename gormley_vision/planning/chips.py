"""Peak rates of chips, from the vendor's pages (cloud.google.com/tpu/docs: v2 to v6e, tpu7x; per JAX device)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates of one JAX device: a chip, except on v2, v3 and tpu7x, where a chip is two devices."""

    flops: float  # of bfloat16 matrix products, per second
    hbm_bandwidth: float  # bytes per second
    link_bandwidth: float  # bytes per second out of the chip, over all its inter-chip links
    memory_gib: float  # available to a program (according to the compiler's own message, libtpu 0.0.52)
    flops_per_cycle: int  # 2 x rows x columns, over its matrix units
    devices_per_chip: int = 1

    @property
    def memory(self) -> int:
        """Bytes available to a program."""
        return int(self.memory_gib * 2**30)

    @property
    def clock(self) -> float:
        """Cycles per second: the peak FLOPs divided by those of one cycle."""
        return self.flops / self.flops_per_cycle


_MXU = 2 * 128 * 128  # FLOPs of one 128 x 128 matrix unit in a cycle
# By jax's device_kind. Links count one direction: half of what a page calls bidirectional, all of a number in Gbps.
CHIPS = {
    "TPU v2": Chip(22.5e12, 350e9, 31e9, 7.48, _MXU, 2),
    "TPU v3": Chip(61.5e12, 450e9, 41e9, 15.48, 2 * _MXU, 2),
    "TPU v4": Chip(275e12, 1228e9, 300e9, 30.75, 8 * _MXU),
    "TPU v5 lite": Chip(197e12, 819e9, 200e9, 15.75, 4 * _MXU),
    "TPU v5": Chip(459e12, 2765e9, 600e9, 95.73, 8 * _MXU),
    "TPU v6 lite": Chip(918e12, 1638e9, 400e9, 31.24, 16 * _MXU),
    "TPU7x": Chip(1153.5e12, 3690e9, 300e9, 94.74, 16 * _MXU, 2),
}
