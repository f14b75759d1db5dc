"""The emulator itself: right kernels give their result under every schedule, wrong ones are stopped for a reason."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.emulator import EVERY_SCHEDULE as SCHEDULES
from support.emulator import crash, load

emu = load()

RIGHT = "selftest_kernel.cuh"
WRONG = "selftest_wrong_kernel.cuh"


@pytest.fixture(autouse=True)
def schedule(request):
    chosen = getattr(request, "param", ("forward", 0))
    emu.set_schedule(*chosen)
    yield chosen[0]
    emu.set_schedule("forward")
    emu.set_step_limit()
    emu.clear_deleted_barrier()


every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}", indirect=True)


def numbers(n: int, low: int = -8, high: int = 9) -> np.ndarray:
    """Small integers, whose sums are exact in any order."""
    return np.random.default_rng(0).integers(low, high, n).astype(np.float32)


def one_block(name: str, x: np.ndarray, out_size: int, block: int = 64, **kwargs) -> np.ndarray:
    return emu.selftest(name, x, out_size, block=(block, 1, 1), **kwargs)


def compacted(x: np.ndarray) -> np.ndarray:
    kept = x[x > 0]
    return np.concatenate([kept, np.zeros(len(x) - len(kept), np.float32)])


def shuffled() -> np.ndarray:
    lane = np.arange(32)
    first = lane // 8 * 8
    up = np.where(lane - 3 < first, lane, lane - 3)
    down = np.where(lane + 3 > first + 7, lane, lane + 3)
    # As PTX has it: an earlier segment can be read, a later one cannot.
    crossed = np.where(lane ^ 10 > first + 7, lane, lane ^ 10)
    return np.concatenate([first + 2, up, down, crossed]).astype(np.float32)


def with_counter(blocks: int) -> np.ndarray:
    out = np.full(2 + blocks, np.nan, np.float32)
    out[-1] = 0
    return out


X64, X256 = numbers(64), numbers(256)
SUMS = np.array([numbers(700)[i : i + 128].sum() for i in range(0, 768, 128)], np.float32)

# name -> (what runs it, what must come out)
CASES = {
    "sum_shared": (lambda: emu.selftest("sum_shared", numbers(700), 6, grid=(6, 1, 1), block=(128, 1, 1)), SUMS),
    "sum_shuffle": (lambda: emu.selftest("sum_shuffle", numbers(700), 6, grid=(6, 1, 1), block=(128, 1, 1)), SUMS),
    "sum_shuffle_double": (
        lambda: emu.selftest("sum_shuffle_double", numbers(700), 6, grid=(6, 1, 1), block=(128, 1, 1)),
        SUMS,
    ),
    "compact": (lambda: one_block("compact", X256[:200], 200, block=256), compacted(X256[:200])),
    "transpose": (
        lambda: emu.selftest("transpose", X256[:240], 240, block=(20, 12, 1), smem=12 * 21 * 4),
        X256[:240].reshape(12, 20).T.ravel(),
    ),
    "histogram": (
        lambda: one_block("histogram", numbers(500, 0, 40), 40, block=40),
        np.bincount(numbers(500, 0, 40).astype(int), minlength=40).astype(np.float32),
    ),
    "half_warps": (lambda: one_block("half_warps", X64, 64), X64.reshape(4, 16).sum(1).repeat(16)),
    "nested_masks": (
        lambda: one_block("nested_masks", X64, 32, block=32),
        np.array([34, *[32] * 30, 34], np.float32),
    ),
    "scan_warp": (lambda: one_block("scan_warp", X64, 64), X64.reshape(2, 32).cumsum(1).ravel()),
    "votes": (
        lambda: one_block("votes", X64[:32], 7, block=32),
        np.array([1, 0, (X64[:32] > 0).sum(), (X64[:32] <= 0).sum(), 1, 0, X64[30]], np.float32),
    ),
    "shuffles": (lambda: one_block("shuffles", np.arange(32, dtype=np.float32), 128, block=32), shuffled()),
    "copy_vectors": (lambda: emu.selftest("copy_vectors", X64, 64, grid=(3, 1, 1), block=(7, 1, 1)), X64),
    "last_block": (
        lambda: emu.selftest("last_block", X256[:128], out=with_counter(4), grid=(4, 1, 1), block=(32, 1, 1)),
        np.concatenate([[X256[:128].sum()], X256[:128].reshape(4, 32).sum(1), [0]]).astype(np.float32),
    ),
    "take_turns": (lambda: one_block("take_turns", X64, 64), np.arange(64, dtype=np.float32)),
    "atomics": (
        lambda: one_block("atomics", X64, 5),
        np.array([X64.max(), X64.min(), 32, 0.75, 4 + 310 + 64000], np.float32),
    ),
}


@every_schedule
@pytest.mark.parametrize("name", CASES)
def test_right_kernels_give_one_result_under_every_schedule(name):
    run, expected = CASES[name]
    np.testing.assert_array_equal(run(), expected)


def test_every_barrier_of_the_right_kernels_is_needed():
    """Deleting any of them shows under at least one schedule."""
    for run, _ in CASES.values():
        run()
    sites = [(file, line) for file, line, _ in emu.barrier_sites() if file.endswith(RIGHT)]
    assert {name for _, _, name in emu.barrier_sites()} == {"DC_SYNC", "DC_SYNCWARP"}
    assert len(sites) == len(set(sites)) >= 12
    for file, line in sites:
        emu.set_deleted_barrier(file, line)
        assert any(differs(run, expected) for run, expected in CASES.values()), f"{file}:{line} is not needed"
        assert emu.deleted_barrier_hits() > 0


def differs(run, expected) -> bool:
    for chosen, seed in [*SCHEDULES, ("random", 3), ("random", 4)]:
        emu.set_schedule(chosen, seed)
        try:
            if not np.array_equal(run(), expected):
                return True
        except emu.EmulationError:
            return True
    return False


def test_a_deleted_barrier_is_matched_by_whole_parts_of_its_path():
    run, expected = CASES["sum_shared"]
    run()
    line = next(n for f, n, _ in emu.barrier_sites() if f.endswith(RIGHT))
    for other in (f"x{RIGHT}", RIGHT[1:], "kernel.cuh"):
        emu.set_deleted_barrier(other, line)
        np.testing.assert_array_equal(run(), expected)
        assert emu.deleted_barrier_hits() == 0
    emu.set_deleted_barrier(f"emu/{RIGHT}", line)
    run()
    assert emu.deleted_barrier_hits() == 6 * 128


def test_the_random_schedule_repeats_for_a_seed_and_differs_between_seeds():
    def run(seed: int) -> bytes:
        emu.set_schedule("random", seed)
        return one_block("wrong_read_before_write", X64, 64).tobytes()

    assert run(5) == run(5)
    assert len({run(seed) for seed in range(5)}) > 1


@every_schedule
def test_the_schedule_is_the_order_of_threads_and_blocks(schedule):
    x, out = np.zeros(1, np.float32), np.zeros(4 * 40 + 1, np.float32)
    turns = emu.selftest("order", x, out=out, grid=(4, 1, 1), block=(40, 1, 1))[:-1].astype(int)
    if schedule == "random":
        # Threads mix within their block, and the blocks among themselves.
        np.testing.assert_array_equal(np.sort(turns), np.arange(160))
        by_block = turns.reshape(4, 40)
        assert (by_block.max(1) - by_block.min(1) == 39).all()
        assert not (np.diff(by_block.min(1)) > 0).all()
        assert not (np.diff(by_block[0]) > 0).all()
    else:
        np.testing.assert_array_equal(turns, np.arange(160)[:: -1 if schedule.endswith("reverse") else 1])


@every_schedule
def test_reading_shared_memory_before_it_is_written_shows_as_nan():
    assert np.isnan(one_block("wrong_read_before_write", X64, 64)).any()


@every_schedule
def test_overwriting_shared_memory_too_early_shows_as_a_difference():
    assert not np.array_equal(one_block("wrong_write_before_read", X64, 64), 3 * np.roll(X64, -1))


def test_a_warp_that_gets_far_ahead_is_seen_by_an_eager_schedule():
    want = np.array([X64.sum(), 2 * X64.sum()])
    right = {}
    for name, seed in SCHEDULES:
        emu.set_schedule(name, seed)
        right[name] = np.array_equal(one_block("wrong_scratch_reused", X64, 2), want)
    assert not right["eager-reverse"]
    assert right["forward"], "the eager schedules are there because the others miss this"


@every_schedule
def test_an_entry_that_no_thread_writes_stays_nan():
    out = one_block("wrong_unwritten", X64, 64, block=1)
    np.testing.assert_array_equal(out[:-1], X64[:-1])
    assert np.isnan(out[-1])


WHERE = r"kernel 'kernel' \(launched at csrc/emu/bind_selftest.cpp:\d+\), block \(0, 0, 0\)"
THREAD = rf"{WHERE}, thread \(\d+, 0, 0\): "
AT = rf" at csrc/emu/{WRONG}:\d+"
WITH = r" with mask 0x[0-9a-f]{8}"
FULL = " with mask 0xffffffff"
DC_SYNC = rf"waiting at DC_SYNC, csrc/emu/{WRONG}:\d+"

# name -> (block, n, the whole message)
STOPPED = {
    "wrong_divergent_barrier": (64, 64, f"{WHERE}: divergent barrier; threads {DC_SYNC}: 16; threads {DC_SYNC}: 48"),
    "wrong_early_return": (64, 40, f"{WHERE}: divergent barrier; threads returned: 24; threads {DC_SYNC}: 40"),
    "wrong_caller_not_in_mask": (
        32,
        32,
        rf"{THREAD}__shfl_xor_sync{AT} with mask 0x0000ffff is called by lane (1[6-9]|2\d|3[01]), not in the mask",
    ),
    "wrong_missing_lane": (20, 20, f"{THREAD}__ballot_sync{AT}{FULL} names lane 20, but this warp has 20 lanes"),
    "wrong_unnamed_source": (
        32,
        32,
        rf"{THREAD}__shfl_down_sync{AT} with mask 0x0000ffff reads lane (1[6-9]|2[0-3]), not in the mask",
    ),
    "wrong_mixed_functions": (
        32,
        32,
        rf"{THREAD}(__shfl_xor_sync|__any_sync){AT}{FULL} names lane \d+, which waits for this lane in "
        rf"(__shfl_xor_sync|__any_sync){AT}{FULL}",
    ),
    "wrong_mixed_lines": (
        32,
        32,
        rf"{THREAD}__shfl_xor_sync{AT}{FULL} names lane \d+, which waits for this lane in __shfl_xor_sync{AT}{FULL}",
    ),
    "wrong_mixed_in_macro": (
        32,
        32,
        rf"{THREAD}__(any|all)_sync{AT}{FULL} names lane \d+, which waits for this lane in __(any|all)_sync{AT}{FULL}",
    ),
    "wrong_mixed_masks": (
        32,
        32,
        rf"{THREAD}__shfl_xor_sync{AT}{WITH} names lane \d+, which waits for this lane in __shfl_xor_sync{AT}{WITH}",
    ),
    "wrong_width": (32, 32, rf"{THREAD}__shfl_sync{AT}: 'width' must be a power of two up to 32, got 12"),
    "wrong_offset": (32, 32, rf"{THREAD}__shfl_down_sync{AT}: the lane offset must be in \[0, 32\), got 32"),
    "wrong_deadlock": (
        32,
        32,
        rf"{WHERE}: deadlock; threads {DC_SYNC}: 16; threads waiting at __shfl_xor_sync{AT}{FULL}: 16",
    ),
    "wrong_vector": (1, 8, f"{THREAD}load_vec{AT}: the address must be a multiple of 16"),
    "wrong_atomic_address": (1, 8, f"{THREAD}atomicAdd{AT}: the address must be a multiple of 4"),
    "wrong_shared_size": (
        1,
        1,
        f"{THREAD}DC_SHARED array 'cells' brings the block to 49153 bytes of shared memory, at most 49152 are there",
    ),
    "wrong_nested_launch": (
        1,
        8,
        rf"kernel 'wrong_unwritten' \(launched at csrc/emu/{WRONG}:\d+\): a kernel cannot launch a kernel",
    ),
}


def stopped(name: str, x: np.ndarray, **kwargs) -> str:
    with pytest.raises(emu.EmulationError) as caught:
        emu.selftest(name, x, 64, **kwargs)
    return str(caught.value)


@every_schedule
@pytest.mark.parametrize("name", STOPPED)
def test_wrong_kernels_are_stopped_for_their_reason(name):
    block, n, message = STOPPED[name]
    assert re.fullmatch(message, stopped(name, X64[:n], block=(block, 1, 1)))
    # What was left on the stacks is of no consequence for the next launch.
    run, expected = CASES["sum_shuffle"]
    np.testing.assert_array_equal(run(), expected)


@every_schedule
def test_a_mask_that_names_a_returned_lane_is_stopped_whichever_comes_first(schedule):
    message = stopped("wrong_returned_lane", X64[:32], block=(32, 1, 1))
    called_after = rf"{THREAD}__shfl_sync{AT}{FULL} names lane 0, which has returned"
    called_before = rf"{THREAD}lane 0 has returned, but lane \d+ waits for it at __shfl_sync{AT}{FULL}"
    either = {"forward": called_after, "reverse": called_before, "random": f"{called_after}|{called_before}"}
    assert re.fullmatch(either[schedule.removeprefix("eager-").replace("eager", "forward")], message)


@every_schedule
def test_a_spin_that_nobody_ends_is_stopped():
    emu.set_step_limit(20000)
    message = stopped("wrong_endless_spin", X64, block=(64, 1, 1))
    # Either the spinning thread or the scheduler takes the last step.
    spin = rf": the thread spins at atomicAdd, csrc/emu/{WRONG}:\d+"
    assert re.match(rf"{WHERE}, thread \(0, 0, 0\): no end after 20000 steps({spin})?; threads ", message)
    assert re.search(rf"; threads {DC_SYNC}: 63", message)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("block", (2000, 1, 1), "'block.x' must be in [1, 1024], got 2000"),
        ("block", (32, 33, 1), "'block.x * block.y * block.z' must be in [1, 1024], got 1056"),
        ("block", (1, 1, 65), "'block.z' must be in [1, 64], got 65"),
        ("block", (0, 1, 1), "'block.x' must be in [1, 1024], got 0"),
        ("grid", (0, 1, 1), "'grid.x' must be in [1, 2147483647], got 0"),
        ("grid", (2**31, 1, 1), "'grid.x' must be in [1, 2147483647], got 2147483648"),
        ("grid", (2**32 + 1, 1, 1), "'grid.x' must be in [1, 2147483647], got 4294967297"),
        ("grid", (1, 65536, 1), "'grid.y' must be in [1, 65535], got 65536"),
        ("grid", (1, 1, 65536), "'grid.z' must be in [1, 65535], got 65536"),
        ("grid", (2**24, 2, 65535), "'blocks of an emulated grid' must be in [1, 16777216], got 33554432"),
        ("grid", (2**16, 2, 65535), "'blocks of an emulated grid' must be in [1, 16777216], got 8589803520"),
        ("smem", 49153, "dynamic shared memory must be in [0, 49152] bytes, got 49153"),
        ("smem", -1, "dynamic shared memory must be in [0, 49152] bytes, got -1"),
    ],
)
def test_launches_that_a_gpu_refuses_are_refused(argument, value, message):
    assert stopped("copy_vectors", X64, **{argument: value}).endswith(f"): {message}")


def test_shared_memory_counts_static_and_dynamic_together():
    assert one_block("shared_size_limit", X64, 1, block=1)[0] == 1
    assert "brings the block to 49153 bytes" in stopped("shared_size_limit", X64, block=(1, 1, 1), smem=1)


def test_arrays_keep_their_bits_and_shape():
    x = np.arange(24, dtype=np.float64).reshape(2, 3, 4)[:, ::2]
    for name, dtype in [
        ("float32", np.float32),
        ("float64", np.float64),
        ("int64", np.int64),
        ("float16", np.float16),
        ("bfloat16", np.uint16),
    ]:
        out = getattr(emu, f"round_trip_{name}")(x.astype(dtype))
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, x.astype(dtype))
        assert getattr(emu, f"round_trip_{name}")(np.empty((0, 3), dtype)).shape == (0, 3)
    with pytest.raises(TypeError, match="emu: 'x' must be float32, got float64"):
        emu.round_trip_float32(x)


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match=r"'schedule' must be 'forward', .* or 'eager-reverse', got 'sideways'"):
        emu.set_schedule("sideways")
    with pytest.raises(ValueError, match="'steps' must be at least 1, got 0"):
        emu.set_step_limit(0)
    with pytest.raises(KeyError, match="'name' must be a self-test kernel, got 'none'"):
        emu.selftest("none", X64)


def test_a_stack_overflow_names_the_thread():
    said = crash("emu.selftest('wrong_stack', np.zeros(4096, np.float32), 1, block=(2, 1, 1))")
    if emu.sanitized:
        assert "AddressSanitizer: stack-overflow" in said
    else:
        assert re.search(f"{THREAD}stack overflow, more than 65536 bytes for one thread", said)


def test_a_tensor_core_cuts_what_lies_below_the_largest_terms_last_bit():
    ulp = 2.0**-23
    assert emu.tensor_sum(1, *[0.99 * ulp] * 4) == 1
    assert emu.tensor_sum(1, *[1.99 * ulp] * 4) == 1 + 4 * ulp
    assert emu.tensor_sum(-1, *[-0.99 * ulp] * 4) == -1  # towards zero
    assert emu.tensor_sum(2**24 - 1, 1, 1, 1, 0) == 2**24 + 2  # exact inside
    assert emu.tensor_sum(2**24 - 1, 1, 1, 0, 0) == 2**24  # and cut again
    assert emu.tensor_sum(0, 1, -1, 2.0**-30, 0) == 0
    assert emu.tensor_sum(0, 0, 0, 0, 0) == 0
    assert emu.tensor_sum(1, np.inf, 0, 0, 0) == np.inf
    assert emu.tensor_sum(2.0**-149, 0, 0, 0, 0) == 2.0**-149
