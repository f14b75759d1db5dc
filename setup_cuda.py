"""What `_C_cuda` is built with: an nvcc that fits torch, the GPUs to compile for, the libraries to link.

Nothing here builds anything, so that the tests can call it; and no GPU is asked, but for TORCH_CUDA_ARCH_LIST=native.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

TOOLKIT = "/usr/local/cuda"  # where NVIDIA's installers put it
# GPUs of 8.9 run the code for 8.6, from which ptxas makes theirs with not a register's difference.
DEFAULT_ARCHITECTURES = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
# The names that TORCH_CUDA_ARCH_LIST may hold, for the GPUs that CUDA 12 and later compile for.
NAMED_ARCHITECTURES = {
    "Maxwell": "5.0;5.2+PTX",
    "Pascal": "6.0;6.1+PTX",
    "Volta": "7.0+PTX",
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ampere+Tegra": "8.7",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
    "Blackwell+Tegra": "11.0",
}
JOB_MEMORY = 2 << 30  # what one nvcc job may take
# torch forbids half arithmetic to every extension; with that undone a kernel compiles the same alone and in the build.
NVCC_FLAGS = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", "-Xcompiler=-fvisibility=hidden"] + [
    f"-U__CUDA_NO_{name}__"
    for name in ("HALF_OPERATORS", "HALF_CONVERSIONS", "HALF2_OPERATORS", "BFLOAT16_CONVERSIONS")
]


class Unfit(Exception):
    """No CUDA library can be built here: the problem, and the command that mends it."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}\n  {mend}")
        self.problem, self.mend = problem, mend


@dataclass(frozen=True)
class Toolkit:
    """An nvcc that fits torch, and where the headers and libraries beside it lie."""

    home: str
    release: tuple[int, int]
    include_folders: list[str]
    libraries: list[str]

    @property
    def nvcc(self) -> str:
        """The compiler."""
        return os.path.join(self.home, "bin", "nvcc")


def mode(environ: Mapping[str, str]) -> str:
    """DEEPCLUST_CUDA: auto (with CUDA where that is possible), 1 (with CUDA or not at all), 0 (without)."""
    value = environ.get("DEEPCLUST_CUDA") or "auto"
    if value not in ("auto", "1", "0"):
        raise Unfit(f"DEEPCLUST_CUDA must be auto, 1 or 0, got '{value}'.", "unset DEEPCLUST_CUDA   (means auto)")
    return value


def find_toolkit(
    environ: Mapping[str, str], torch_cuda: str | None, folders: Iterable[str] = tuple(sys.path)
) -> Toolkit:
    """The first nvcc of torch's major version; `folders` hold installed packages, as sys.path does."""
    if torch_cuda is None:
        raise Unfit("this torch is built without CUDA.", "install a torch for CUDA, or set DEEPCLUST_CUDA=0")
    major = int(torch_cuda.split(".")[0])
    packages = [path for folder in folders for path in sorted(glob.glob(os.path.join(folder or ".", "nvidia", "*")))]
    ours = f"cu{major}"  # packages of CUDA 13 and later share this folder
    packages = [path for path in packages if re.fullmatch(rf"{ours}|(?!cu\d+$).*", os.path.basename(path))]
    homes = _homes(environ, [path for path in packages if os.path.basename(path) == ours])
    mend = f"pip install 'cuda-toolkit[nvcc,nvvm,crt,cccl]=={torch_cuda}.*'   (or set CUDA_HOME)"
    if not homes:
        raise Unfit("no nvcc found.", mend)
    releases = {home: release(os.path.join(home, "bin", "nvcc")) for home in homes}
    home = next((home for home in homes if releases[home][0] == major), None)
    if home is None:
        found = ", ".join(f"{'.'.join(map(str, release))} ({home})" for home, release in releases.items())
        raise Unfit(f"torch is built for CUDA {torch_cuda}, nvcc is {found}.", mend)
    includes = [os.path.join(home, "include"), *glob.glob(os.path.join(home, "targets", "*", "include"))]
    includes += ["/usr/include", *(os.path.join(path, "include") for path in packages)]
    # torch's own copies come first: they are what the library will run with.
    libraries = [os.path.join(path, "lib") for path in packages]
    libraries += [os.path.join(home, name) for name in ("lib64", "lib")]
    libraries += [*glob.glob(os.path.join(home, "targets", "*", "lib")), f"/usr/lib/{platform.machine()}-linux-gnu"]
    headers = ("cuda_runtime_api.h", "crt/host_defines.h", "cublas_v2.h")  # each may lie in a package of its own
    folders = [_first([f"{path}/{name}" for path in includes], mend).removesuffix(f"/{name}") for name in headers]
    return Toolkit(
        home,
        releases[home],
        # g++ breaks when /usr/include, which it searches anyway, is named.
        [path for path in dict.fromkeys(folders) if path != "/usr/include"],
        # By file: pip packages hold libcudart.so.13 without the libcudart.so that -lcudart looks for. Shared, because
        # the runtime keeps the current device and the last error, and torch's is the one that has them.
        [
            _first([f"{path}/lib{name}.so{end}" for path in libraries for end in (f".{major}", "")], mend)
            for name in ("cudart", "cublas")
        ],
    )


def _homes(environ: Mapping[str, str], packages: list[str]) -> list[str]:
    """The folders that hold bin/nvcc, best first; a folder that the user names is the only one."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            if not os.access(os.path.join(environ[name], "bin", "nvcc"), os.X_OK):
                raise Unfit(f"{name} is {environ[name]}, where there is no bin/nvcc.", f"unset {name}   (or mend it)")
            return [environ[name]]
    on_path = shutil.which("nvcc", path=environ.get("PATH", ""))
    homes = [_home(on_path)] if on_path else []
    return [home for home in [*homes, TOOLKIT, *packages] if os.access(os.path.join(home, "bin", "nvcc"), os.X_OK)]


def _home(nvcc: str) -> str:
    """The toolkit behind an nvcc that may be a script or a link somewhere on PATH: nvcc itself tells where it lies."""
    found = re.search(
        r"^#\$ TOP=(.+)$", _output([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", "x"]), re.MULTILINE
    )
    return os.path.realpath(found[1].strip() if found else os.path.join(os.path.dirname(nvcc), ".."))


def _first(paths: list[str], mend: str) -> str:
    """The first path that exists."""
    for path in paths:
        if os.path.exists(path):
            return path
    raise Unfit(f"{os.path.basename(paths[0])} is missing beside nvcc and torch.", mend)


def _output(command: list[str]) -> str:
    """What a command prints; Unfit where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr  # nvcc's dry run prints to the latter
    except OSError as error:
        raise Unfit(f"{command[0]} does not run: {error}.", "reinstall it, or set DEEPCLUST_CUDA=0") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stdout + error.stderr).splitlines() or ["no output"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise Unfit(f"{command[0]} fails: {first}", "mend or reinstall it, or set DEEPCLUST_CUDA=0") from error


def release(nvcc: str) -> tuple[int, int]:
    """(13, 0) for CUDA 13.0."""
    found = re.search(r"release (\d+)\.(\d+)", _output([nvcc, "--version"]))
    if found is None:
        raise Unfit(f"{nvcc} does not tell its version.", "reinstall it, or set DEEPCLUST_CUDA=0")
    return int(found[1]), int(found[2])


def try_compile(toolkit: Toolkit) -> None:
    """Unfit where nvcc or the host compiler behind it does not work: better said now than in the middle of a build."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.cu")
        with open(source, "w") as file:
            file.write("#include <cuda_fp16.h>\n__global__ void probe(__half* x) { *x = __float2half(1.0f); }\n")
        host = ["-ccbin", os.environ["CC"]] if os.environ.get("CC") else []  # as torch's build does
        paths = [f"-I{path}" for path in toolkit.include_folders]
        _output([toolkit.nvcc, *host, *paths, "-std=c++20", "-c", source, "-o", os.path.join(folder, "probe.o")])


def known_architectures(nvcc: str) -> list[str]:
    """What this nvcc compiles for, as "8.6"."""
    return [f"{n[:-1]}.{n[-1]}" for n in re.findall(r"compute_(\d+)", _output([nvcc, "--list-gpu-arch"]))]


def choose_architectures(
    text: str, known: list[str], capabilities: Callable[[], list[tuple[int, int]]]
) -> tuple[str, ...]:
    """TORCH_CUDA_ARCH_LIST as a list such as ("8.0", "9.0+PTX"); "" means our default, as far as nvcc knows it."""
    if not text.strip():
        chosen = [architecture for architecture in DEFAULT_ARCHITECTURES if architecture in known] or known[-1:]
        return (*chosen[:-1], chosen[-1] + "+PTX")
    words = [
        part for word in re.split(r"[;\s]+", text.strip()) for part in NAMED_ARCHITECTURES.get(word, word).split(";")
    ]
    if words == ["native"]:
        words = [f"{major}.{minor}" for major, minor in sorted(set(capabilities()))]
        if not words:
            raise Unfit("TORCH_CUDA_ARCH_LIST is native, and no GPU is visible.", "unset TORCH_CUDA_ARCH_LIST")
    for word in filter(None, words):
        found = re.fullmatch(r"(\d+\.\d)[af]?(\+PTX)?", word)
        if found is None or found[1] not in known:
            raise Unfit(
                f"TORCH_CUDA_ARCH_LIST must list architectures that this nvcc knows, got '{word}'.",
                f"known: {' '.join(known)}   (or one of {', '.join(NAMED_ARCHITECTURES)}, native)",
            )
    return tuple(dict.fromkeys(filter(None, words)))


def gencode_flags(architectures: Iterable[str]) -> list[str]:
    """The flags for nvcc: machine code for each architecture, and PTX, which newer GPUs translate, for each +PTX.

    Machine code for 8.6 is made of 8.0's PTX where both are built: that is half of its compilation, and PTX has nothing
    for 8.6 that it has not for 8.0.
    """
    flags, first = [], dict[str, str]()
    for architecture in architectures:
        number = architecture.removesuffix("+PTX").replace(".", "")
        if architecture.endswith("+PTX"):
            flags += [f"-gencode=arch=compute_{number},code={kind}_{number}" for kind in ("sm", "compute")]
            continue
        source = first.setdefault("8", number) if re.fullmatch(r"8\d", number) else number
        flags.append(f"-gencode=arch=compute_{source},code=sm_{number}")
    return flags


def job_limit(processors: int, memory: int) -> int:
    """How many compilers may run at once; without a limit, many processors with little memory end in a killed build."""
    return max(1, min(processors, memory // JOB_MEMORY))


def available_memory() -> int:
    """Bytes that this machine, and the container around us, leave free."""
    with open("/proc/meminfo") as file:
        found = re.search(r"MemAvailable:\s+(\d+)", file.read())
    sizes = [int(found[1]) << 10] if found else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.exists(path):
            with open(path) as file:
                text = file.read().strip()
            sizes += [int(text)] if text.isdigit() else []
    return min(sizes, default=JOB_MEMORY)
