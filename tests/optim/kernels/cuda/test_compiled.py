"""Every kernel that a step starts compiles for the GPUs that train BERT, in registers alone."""

import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type

from optim.kernels.cuda import launch as host
from optim.kernels.operands import Operands
from optim.kernels.settings import Settings, table

REGISTERS = 64
"""With so many or fewer a multiprocessor holds 1024 threads, half of what it can."""

ENCODING = 168
"""Registers that finding 8-bit codes may take: 384 threads."""

STACK_BYTES = 32
"""Of a thread, of the kernel that makes both passes: 8 registers."""

SHARED_BYTES = 32
"""What a sum over 4 warps passes through shared memory. More means that a kernel moves whole blocks between threads."""

BOTH_PASSES = 96
"""Registers of the kernel that has both passes: 640 threads."""


class Format(NamedTuple):
    """Dtypes of a call; gradients and moments are as the weights where nothing else is said."""

    weights: torch.dtype
    grads: torch.dtype
    moments: torch.dtype

    @classmethod
    def of(cls, weights: torch.dtype, grads: torch.dtype | None = None, moments: torch.dtype | None = None) -> "Format":
        return cls(weights, grads or weights, moments or weights)


FORMATS = [
    Format.of(torch.float32),
    Format.of(torch.float64),
    Format.of(torch.bfloat16),
    Format.of(torch.float16),
    Format.of(torch.float32, grads=torch.bfloat16),
    Format.of(torch.float32, grads=torch.float16),
    Format.of(torch.float32, moments=torch.bfloat16),
    Format.of(torch.float32, moments=torch.uint8),
    Format.of(torch.float32, grads=torch.bfloat16, moments=torch.bfloat16),
    Format.of(torch.float32, grads=torch.bfloat16, moments=torch.uint8),
]
# Those that the kernels refuse with this version of Triton are stepped in plain PyTorch.
with warnings.catch_warnings(action="ignore"):  # which this is to warn of is not what is tested here
    HAS_CODES = host.compiles_codes(triton.__version__)
FORMATS = [each for each in FORMATS if each.moments is not torch.uint8 or HAS_CODES]


class Launch(NamedTuple):
    """A kernel with the types and constants it is started with; Triton compiles once for each of these."""

    kernel: Any
    types: tuple[str, ...]
    constants: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    def compile(self, capability: int) -> Any:
        return self.compile_for(GPUTarget("cuda", capability, 32))

    def compile_for(self, target: GPUTarget) -> Any:
        signature = dict(zip(self.kernel.arg_names, self.types, strict=False))
        constants = dict(self.constants)
        source = ASTSource(self.kernel, signature | dict.fromkeys(constants, "constexpr"), constants)
        return triton.compile(source, target=target, options=host.OPTIONS)


class Resources(NamedTuple):
    """What a thread of a compiled kernel takes."""

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    """Of all threads together."""


def use_every_operator(dtypes: Format, offset: int) -> None:
    """Call the operators with tensors that lie so many elements behind an aligned address, the step both ways."""

    def one(dtype: torch.dtype) -> list[Tensor]:
        return [torch.zeros(9 + offset, dtype=dtype)[offset:]]

    scales = [[torch.zeros(1)] if dtypes.moments is torch.uint8 else [] for _ in range(2)]
    copies = [] if dtypes.grads is dtypes.weights else one(dtypes.grads)
    lists = one(dtypes.weights), one(dtypes.grads), one(dtypes.moments), one(dtypes.moments), [torch.zeros(())]
    operands = Operands(*lists, copies, scales[0], scales[1], table([Settings()]))
    clip, lr = torch.zeros(3).double(), torch.zeros(1).double()
    host.lamb_clip(host.sum_squares(operands), 1.0, True)
    norms = host.lamb_ratio(operands, host.lamb_update(operands, clip), clip, lr)
    host.lamb_apply(operands, norms[3])
    for host.AT_ONCE in (True, False):
        host.lamb_step(operands, clip, lr)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Callable[[Format, int], set[Launch]]:
    """Return what the operators start for a format and alignment; nothing runs, for there need be no GPU here."""
    started: set[Launch] = set()

    def note(kernel: Any, _programs: int, *arguments: Any, **constants: Any) -> None:
        parameters = zip(kernel.params, arguments, strict=False)
        types = tuple(parameter.annotation_type or mangle_type(argument) for parameter, argument in parameters)
        started.add(Launch(kernel, types, tuple(constants.items())))

    def find(dtypes: Format, offset: int) -> set[Launch]:
        started.clear()
        use_every_operator(dtypes, offset)
        return set(started)

    monkeypatch.setattr(host, "_launch", note)
    return find


def resources(compiled: Any, folder: Path) -> Resources:
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    dump = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
    text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return Resources(int(found["REG"]), int(found["STACK"]), int(found["LOCAL"]), compiled.metadata.shared)


def sums_of_copies(ttgir: str) -> list[str]:
    """Return the types of what is reduced although some lanes of a warp hold the same terms as others.

    So it is with a slice of a linear layout whose lanes differ in the dimension that is gone. Before 3.7, Triton took
    lanes next to each other for those with different terms: it added some of them twice and left others out.
    """
    lanes = {
        name: [tuple(map(int, basis.split(", "))) for basis in re.findall(r"\[([\d, ]+)\]", bases)]
        for name, bases in re.findall(r"^(#linear\d*) = .*\blane = \[(.*?)\], warp", ttgir, re.MULTILINE)
    }
    found = []
    for types in re.findall(r"^\s*\}\) : \((.*?)\) -> ", ttgir, re.MULTILINE):
        for dims, name in re.findall(r"((?:#ttg\.slice<\{dim = \d+, parent = )+)(#linear\d*)", types):
            left = list(range(len(lanes[name][0])))
            for dim in reversed(re.findall(r"\d+", dims)):
                del left[int(dim)]
            if any(not any(basis[each] for each in left) for basis in lanes[name]):
                found.append(types)
    return found


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtypes", FORMATS, ids=str)
def test_every_kernel_keeps_what_it_works_on_in_64_registers_or_96_for_both_passes_or_168_where_it_finds_codes(
    dtypes: Format, offset: int, capability: int, launches: Any, tmp_path: Path, record_property: Any
) -> None:
    started = launches(dtypes, offset)
    assert {launch.name for launch in started} == {
        *("squares", "total_squares", "clip_gradients"),
        *("update", "finish_update", "finish_step", "ratios", "apply", "whole_step"),
    }
    for launch in started:
        used = resources(launch.compile(capability), tmp_path)
        for name, value in used._asdict().items():
            record_property(name, value)  # scripts/compat has these in its table
        whole = launch.name == "whole_step"
        # It has both passes to remember, and keeps a few registers on the stack.
        assert used.stack_bytes <= (STACK_BYTES if whole else 0), launch
        assert used.local_bytes == 0, launch
        assert used.shared_bytes <= SHARED_BYTES, launch
        encodes = (whole or launch.name == "update") and dtypes.moments is torch.uint8
        # With Triton 3.8 `update` forms a 64-bit address for each access (17 wide products, where 3.7 has 3), and then
        # takes 80 for float16 under masters on sm_90: 768 threads.
        halves = REGISTERS if dtypes.grads is not torch.float16 or not triton.__version__.startswith("3.8") else 80
        # There, `whole_step` takes up to 116, and with 3.9 98: 512 threads.
        both = 120 if triton.__version__.startswith(("3.8", "3.9")) else BOTH_PASSES
        assert used.registers <= (ENCODING if encodes else both if whole else halves), launch


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtypes", FORMATS, ids=str)
def test_no_kernel_has_what_a_triton_of_these_is_known_to_compile_wrongly(
    dtypes: Format, offset: int, launches: Any
) -> None:
    """Only a GPU shows a wrong result, but what leads to those that are known can be seen in the code."""
    for launch in launches(dtypes, offset):
        asm = launch.compile(90).asm
        assert sums_of_copies(asm["ttgir"]) == [], launch  # 3.5 and 3.6
        # Quotients of a block of whole numbers, 3.7; a minimum that keeps NaN beside a store of single bytes, 3.8.
        assert re.findall(r"arith\.(?:div|rem)[su]i .*tensor<.*", asm["ttgir"]) == [], launch
        assert re.findall(r"\b(?:min|max)\.NaN\S*", asm["ptx"]) == [], launch


def test_a_sum_that_triton_3_6_got_wrong_is_recognized() -> None:
    """As `update` had them there for 8-bit moments: wrong where a thread reads 4 neighbours, right where it reads 1."""
    total = "tensor<128xf64, #ttg.slice<{dim = 0, parent = #ttg.slice<{dim = 2, parent = #linear}>}>>"

    def sums(lanes: str) -> str:
        layout = f"#linear = #ttg.linear<{{register = [[0, 16, 0]], lane = {lanes}, warp = [[0, 4, 0]], block = []}}>"
        return f"{layout}\n    }}) : (tensor<1x128x4xf64, #linear>) -> f64\n    }}) : ({total}) -> f64\n"

    assert sums_of_copies(sums("[[0, 64, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 2, 0]]")) == [total]
    assert sums_of_copies(sums("[[0, 1, 0], [0, 2, 0], [0, 4, 0], [0, 8, 0], [0, 16, 0]]")) == []


@pytest.mark.parametrize("processor", ["gfx90a", "gfx942"])
@pytest.mark.parametrize("dtypes", [each for each in FORMATS if each.weights is torch.float32], ids=str)
def test_every_kernel_compiles_for_amds_gpus_and_keeps_what_it_works_on_in_registers(
    dtypes: Format, processor: str, launches: Any
) -> None:
    for launch in launches(dtypes, 0):
        assembly = launch.compile_for(GPUTarget("hip", processor, 64)).asm["amdgcn"]
        (spilt,) = re.findall(r"\.vgpr_spill_count:\s+(\d+)", assembly)
        (scratch_bytes,) = re.findall(r"\.private_segment_fixed_size:\s+(\d+)", assembly)
        assert (int(spilt), int(scratch_bytes)) == (0, 0), launch


def wide_accesses(ptx: str) -> Iterator[tuple[str, int]]:
    """Yield each access of memory to more than 8 bytes: ld or st, and how many bytes."""
    for kind, count, bits in re.findall(r"(ld|st)\.global\.v(\d)\.b(\d+)", ptx):
        yield kind, int(count) * int(bits) // 8


@pytest.mark.parametrize("weights", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_whole_blocks_of_aligned_tensors_move_16_bytes_at_a_time(weights: torch.dtype, launches: Any) -> None:
    ptx = {launch.name: launch.compile(90).asm["ptx"] for launch in launches(Format.of(weights), 0)}
    pieces = 1 if weights in {torch.bfloat16, torch.float16} else 2  # what a thread takes of a block, 16 bytes each
    assert sorted(wide_accesses(ptx["squares"])) == [("ld", 16)] * pieces
    assert sorted(wide_accesses(ptx["update"])) == [("ld", 16)] * 4 * pieces + [("st", 16)] * 2 * pieces
    assert sorted(wide_accesses(ptx["apply"])) == [("ld", 16)] * 3 * pieces + [("st", 16)] * pieces


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_copies_are_rounded_to_nearest_and_move_with_their_masters(half: torch.dtype, launches: Any) -> None:
    ptx = {launch.name: launch.compile(90).asm["ptx"] for launch in launches(Format.of(torch.float32, half), 0)}
    assert sorted(wide_accesses(ptx["apply"])) == [("ld", 16)] * 6 + [("st", 8)] * 2 + [("st", 16)] * 2
    assert sorted(wide_accesses(ptx["update"])) == [("ld", 8)] * 4 + [("ld", 16)] * 6 + [("st", 16)] * 4
    rounding = set(re.findall(r"cvt\.(\w+)\.(?:b?f16x?2?)\.f32", ptx["apply"]))
    assert rounding == {"rn"}


def test_narrow_moments_move_with_their_weights(launches: Any) -> None:
    ptx = {
        launch.name: launch.compile(90).asm["ptx"]
        for launch in launches(Format.of(torch.float32, moments=torch.bfloat16), 0)
    }
    assert sorted(wide_accesses(ptx["update"])) == [("ld", 8)] * 4 + [("ld", 16)] * 4 + [("st", 8)] * 4
    assert sorted(wide_accesses(ptx["apply"])) == [("ld", 8)] * 4 + [("ld", 16)] * 2 + [("st", 16)] * 2


@pytest.mark.parametrize("kernel", ["update", "apply"])
def test_roots_and_quotients_of_float32_are_rounded_correctly(kernel: str, launches: Any) -> None:
    (launch,) = [each for each in launches(Format.of(torch.float32), 0) if each.name == kernel]
    ptx = launch.compile(90).asm["ptx"]
    subnormal = ".ftz" if triton.__version__.startswith("3.5") else ""  # there they become 0, far below any eps
    assert set(re.findall(r"(?:div|sqrt)\.[\w.]*f32", ptx)) == {f"div.rn{subnormal}.f32", f"sqrt.rn{subnormal}.f32"}


def test_the_lower_of_two_numbers_is_the_one_that_is_no_nan(launches: Any) -> None:
    started = launches(Format.of(torch.float32, moments=torch.uint8), 0)
    (ptx,) = [launch.compile(90).asm["ptx"] for launch in started if launch.name == "update"]
    assert set(re.findall(r"(?:min|max)\.[\w.]*f32", ptx)) == {"min.f32", "max.f32"}  # and not min.NaN.f32


def test_in_one_launch_a_barrier_stands_before_what_says_that_all_is_written_and_behind_what_has_heard_it(
    launches: Any,
) -> None:
    (ptx,) = [
        each.compile(90).asm["ptx"] for each in launches(Format.of(torch.float32), 0) if each.name == "whole_step"
    ]
    found = re.findall(r"bar\.sync|(?:atom|red|ld)\.global\.gpu\.(?:\w+)", ptx)  # `red` is an `atom` without a result
    orders = [each.rpartition(".")[2] for each in found]
    assert [order for order in orders if order != "sync"] == ["relaxed", "acquire", "acq_rel", "release"]
    for order in ("acq_rel", "release"):
        assert orders[orders.index(order) - 1] == "sync"
    for order in ("relaxed", "acquire", "acq_rel"):
        assert orders[orders.index(order) + 1] == "sync"
