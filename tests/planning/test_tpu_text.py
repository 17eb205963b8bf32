"""What only TPU's compiler writes, in a program made by hand: memory spaces, steps of two, ways to name groups."""

import pytest

from gormley_vision.planning.cost import cost_of

PROGRAM = """HloModule jit_step, is_scheduled=true

%condition (p: (u32[], f32[8,8])) -> pred[] {
  %limit = u32[]{:T(128)} constant(16)
  %p = (u32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) parameter(0)
  %counter = u32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %limit), direction=LT
}

%slice_it (stack: f32[16,8,8], at: s32[]) -> f32[1,8,8] {
  %stack = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %one = f32[1,8,8]{2,1,0:T(8,128)} dynamic-slice(%stack, %at, %zero, %zero), dynamic_slice_sizes={1,8,8}
}

%put_it (whole: f32[16,8,8], part: f32[1,8,8], at: s32[]) -> f32[16,8,8] {
  %whole = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %part = f32[1,8,8]{2,1,0:T(8,128)} parameter(1)
  %at.1 = s32[]{:T(128)} parameter(2)
  %zero.1 = s32[]{:T(128)} constant(0)
  ROOT %put = f32[16,8,8]{2,1,0:T(8,128)} dynamic-update-slice(%whole, %part, %at.1, %zero.1, %zero.1)
}

%body (q: (u32[], f32[8,8])) -> (u32[], f32[8,8]) {
  %q = (u32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) parameter(0)
  %n = u32[]{:T(128)} get-tuple-element(%q), index=0
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%n, %two)
  %x = f32[8,8]{1,0:T(8,128)} get-tuple-element(%q), index=1
  %sum = f32[8,8]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups=mesh['a'=2,'b'=4] {'a','b'}, to_apply=%add
  %y = f32[8,8]{1,0:T(8,128)} convolution(%sum, %sum), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"50"}
  ROOT %out = (u32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) tuple(%next, %y)
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %ab = f32[] add(%a, %b)
}

ENTRY %main (x0: f32[8,8], stacked: f32[16,8,8], i: s32[]) -> f32[8,8] {
  %x0 = f32[8,8]{1,0:T(8,128)} parameter(0)
  %stacked = f32[16,8,8]{2,1,0:T(8,128)} parameter(1)
  %i = s32[]{:T(128)} parameter(2)
  %start = u32[]{:T(128)} constant(4)
  %copied = u32[]{:T(128)} copy(%start)
  %init = (u32[]{:T(128)}, /*index=1*/f32[8,8]{1,0:T(8,128)}) tuple(%copied, %x0)
  %loop = (u32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) while(%init), condition=%condition, body=%body
  %near = f32[8,8]{1,0:T(8,128)S(1)} fusion(%x0), kind=kLoop, calls=%copy_in
  %fetch = (f32[8,8]{1,0:T(8,128)S(1)}, f32[8,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x0)
  %one.1 = f32[1,8,8]{2,1,0:T(8,128)} fusion(%stacked, %i), kind=kLoop, calls=%slice_it
  %all = f32[16,8,8]{2,1,0:T(8,128)} fusion(%stacked, %one.1, %i), kind=kLoop, calls=%put_it
  %tiled = f32[8,8]{1,0:T(8,128)} all-gather(%x0), channel_id=2, replica_groups=[4,2]<=[8], dimensions={0}
  %again = f32[8,8]{1,0:T(8,128)} all-gather(%x0), channel_id=2, replica_groups=[4,2]<=[8], dimensions={0}
  %listed = f32[8,8]{1,0:T(8,128)} all-gather(%x0), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  ROOT %end = f32[8,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}

%copy_in (z: f32[8,8]) -> f32[8,8] {
  %z = f32[8,8]{1,0:T(8,128)} parameter(0)
  ROOT %w = f32[8,8]{1,0:T(8,128)S(1)} copy(%z)
}
"""
MATRIX = 8 * 8 * 4  # bytes
TRIPS = 6  # 4, 6, ..., 14


def test_a_loop_that_counts_by_two_from_four():
    cost = cost_of(PROGRAM)
    assert cost.unknown_loops == 0
    assert cost.flops == TRIPS * 2 * 8**3
    assert cost.cycles == TRIPS * 50


def test_exchanges_once_for_each_channel_with_their_groups():
    found = {(c.kind, c.group, c.times) for c in cost_of(PROGRAM).collectives}
    assert found == {("all-reduce", 8, TRIPS), ("all-gather", 2, 1), ("all-gather", 4, 1)}


def test_bytes_of_device_memory_by_hand():
    in_the_loop = TRIPS * (2 * MATRIX + 3 * MATRIX + 2 * 4 + 4)  # the sum, the product, and the counter
    by_name = {
        "copied": 2 * 4,
        "near": MATRIX,  # its result stays on the chip
        "fetch": MATRIX,
        "one.1": 2 * MATRIX + 4,  # a slice is read and written, and where it is
        "all": 2 * MATRIX + 4,
        "gathers": 3 * 2 * MATRIX,
    }
    condition = TRIPS * (4 + 4 + 1)
    assert cost_of(PROGRAM).hbm_bytes == pytest.approx(in_the_loop + sum(by_name.values()) + condition)


# Fusions within fusions: one layer is read from a stack through two of them, one is replaced through two, and a stack
# that starts as zeros within the fusion is written completely.
NESTED = """HloModule jit_step, is_scheduled=true

%inner_read (a: f32[16,8,8], b: s32[]) -> f32[1,8,8] {
  %a = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %b = s32[]{:T(128)} parameter(1)
  %c = s32[]{:T(128)} constant(0)
  ROOT %d = f32[1,8,8]{2,1,0:T(8,128)} dynamic-slice(%a, %b, %c, %c), dynamic_slice_sizes={1,8,8}
}

%outer_read (e: s32[], f: f32[16,8,8]) -> f32[8,8] {
  %e = s32[]{:T(128)} parameter(0)
  %f = f32[16,8,8]{2,1,0:T(8,128)} parameter(1)
  %g = f32[1,8,8]{2,1,0:T(8,128)} fusion(%f, %e), kind=kLoop, calls=%inner_read
  ROOT %h = f32[8,8]{1,0:T(8,128)} bitcast(%g)
}

%inner_write (i: f32[16,8,8], j: f32[1,8,8], k: s32[]) -> f32[16,8,8] {
  %i = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %j = f32[1,8,8]{2,1,0:T(8,128)} parameter(1)
  %k = s32[]{:T(128)} parameter(2)
  %l = s32[]{:T(128)} constant(0)
  %i.1 = f32[16,8,8]{2,1,0:T(8,128)} bitcast(%i)
  ROOT %m = f32[16,8,8]{2,1,0:T(8,128)} dynamic-update-slice(%i.1, %j, %k, %l, %l)
}

%outer_write (n: f32[16,8,8], o: f32[8,8], p: s32[]) -> (f32[8,8], f32[16,8,8]) {
  %n = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %o = f32[8,8]{1,0:T(8,128)} parameter(1)
  %p = s32[]{:T(128)} parameter(2)
  %q = f32[8,8]{1,0:T(8,128)} negate(%o)
  %r = f32[1,8,8]{2,1,0:T(8,128)} bitcast(%q)
  %s = f32[16,8,8]{2,1,0:T(8,128)} fusion(%n, %r, %p), kind=kLoop, calls=%inner_write
  ROOT %t = (f32[8,8]{1,0:T(8,128)}, f32[16,8,8]{2,1,0:T(8,128)}) tuple(%q, %s)
}

%from_zeros (u: f32[1,8,8], v: s32[]) -> f32[16,8,8] {
  %u = f32[1,8,8]{2,1,0:T(8,128)} parameter(0)
  %v = s32[]{:T(128)} parameter(1)
  %w = f32[]{:T(128)} constant(0)
  %x = f32[16,8,8]{2,1,0:T(8,128)} broadcast(%w), dimensions={}
  %y = s32[]{:T(128)} constant(0)
  ROOT %z = f32[16,8,8]{2,1,0:T(8,128)} dynamic-update-slice(%x, %u, %v, %y, %y)
}

%both (aa: f32[16,8,8], bb: s32[]) -> f32[16,8,8] {
  %aa = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %bb = s32[]{:T(128)} parameter(1)
  %cc = s32[]{:T(128)} constant(0)
  %dd = f32[1,8,8]{2,1,0:T(8,128)} dynamic-slice(%aa, %bb, %cc, %cc), dynamic_slice_sizes={1,8,8}
  %ee = f32[16,8,8]{2,1,0:T(8,128)} negate(%aa)
  ROOT %ff = f32[16,8,8]{2,1,0:T(8,128)} dynamic-update-slice(%ee, %dd, %bb, %cc, %cc)
}

ENTRY %main (stack: f32[16,8,8], at: s32[], row: f32[8,8]) -> f32[8,8] {
  %stack = f32[16,8,8]{2,1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %row = f32[8,8]{1,0:T(8,128)} parameter(2)
  CASE
}
"""
STACK = 16 * MATRIX


@pytest.mark.parametrize(
    ("case", "by_hand"),
    [
        ("ROOT %end = f32[8,8]{1,0} fusion(%at, %stack), kind=kLoop, calls=%outer_read", 4 + MATRIX + MATRIX),
        (
            "ROOT %end = (f32[8,8]{1,0}, f32[16,8,8]{2,1,0}) fusion(%stack, %row, %at), kind=kLoop, calls=%outer_write",
            MATRIX + 4 + 2 * MATRIX,  # the row and its place are read, its negative is written twice
        ),
        ("ROOT %end = f32[16,8,8]{2,1,0} fusion(%row, %at), kind=kLoop, calls=%from_zeros", MATRIX + 4 + STACK),
        ("ROOT %end = f32[16,8,8]{2,1,0} fusion(%stack, %at), kind=kLoop, calls=%both", STACK + 4 + STACK),
    ],
)
def test_slices_within_fusions_by_hand(case, by_hand):
    assert cost_of(NESTED.replace("CASE", case)).hbm_bytes == by_hand


KERNELS = """HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %y = f32[8,8]{1,0} convolution(%x, %x), dim_labels=bf_io->bf, metadata={op_name="jit(step)/jvp(Net)/while/body/mlp/in/dot"}, backend_config={"estimated_cycles":"50"}
  %z = f32[8,8]{1,0} convolution(%y, %x), dim_labels=bf_io->bf, metadata={op_name="jit(step)/transpose(jvp(Net))/checkpoint/rematted_computation/mlp/in/dot"}, backend_config={"estimated_cycles":"70"}
  %c = f32[8,8]{0,1} copy(%z), backend_config={"estimated_cycles":"30"}
  ROOT %k = f32[8,8]{1,0} custom-call(%c), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"4096","transcendentals":"7"}}}
}
"""  # noqa: E501


def test_kernels_recomputation_and_the_costliest_operations():
    cost, product = cost_of(KERNELS), 2 * 8**3
    assert (cost.kernels, cost.kernel_flops) == (1, 4096)
    assert cost.flops == 2 * product + 4096
    assert cost.model_flops == product + 4096  # one product is computed again
    assert cost.cycles == 150
    assert [(operation.place, operation.kind, operation.cycles) for operation in cost.operations] == [
        ("backward: rematted_computation/mlp/in/dot", "convolution", 70),
        ("mlp/in/dot", "convolution", 50),
        ("", "copy", 30),
    ]


def test_without_an_estimate_of_each_operation_there_is_none():
    """What a convolution of pix2pix at 1,024 pixels has."""
    assert cost_of(KERNELS.replace('"70"', f'"{2**63 - 1}"')).cycles == 0
