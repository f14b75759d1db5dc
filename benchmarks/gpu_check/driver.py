"""Runs parts one after another, each in a process of its own with a limit, and goes on when one fails."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.page import page
from benchmarks.gpu_check.parts import Part
from benchmarks.gpu_check.reading import NOTHING, read
from benchmarks.gpu_check.result import write

ROOT = Path(__file__).parents[2]
KEPT = 1 << 20  # bytes of a part's output that the log keeps, from its end
GRACE = 8.0  # seconds that a part has to write what it knows once it is asked to stop
SLOWER = 3  # a rehearsal: its compilers are slow, and nobody waits for it
LEAST = 5.0  # seconds: a part is not begun with less
FIELDS = (
    "name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.draw",
    "power.limit", "temperature.gpu",
)  # fmt: skip


def check(parts: Sequence[Part], out: Path, *, seconds: float, rehearse: bool = False) -> int:
    """Run the parts, and keep gpu.json, gpu.log and gpu.md in `out` up to date; 0 if none failed.

    Parameters
    ----------
    parts : sequence of Part
    out : Path
        A folder; made where it is missing.
    seconds : float
        The limit of all parts together.
    rehearse : bool, default False
        On the CPU and small: shows what is wrong with the check itself.
    """
    out.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "rehearsal": rehearse,
        "seconds": 0.0,
        "machine": machine(),
        "parts": [],
    }
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, open(out / "gpu.log", "wb") as log:
        for part in parts:
            left = seconds - (time.monotonic() - begin)
            record = _run(part, Path(folder), log, left, rehearse)
            sys.stdout.write(f"{part.name:<12}{record['seconds']:>7.1f} s  {record['outcome']}  {record['reason']}\n")
            sys.stdout.flush()
            data["parts"].append(record)
            data["seconds"] = round(time.monotonic() - begin, 1)
            write(out / "gpu.json", data)
            (out / "gpu.md").write_text(page(data), encoding="utf-8")
    return 1 if any(part["outcome"] in ("failed", "stopped", "not run") for part in data["parts"]) else 0


def machine() -> dict[str, Any]:
    """What the figures are taken on; asked of programs, so that it is known where torch cannot be imported."""
    smi = _output(["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"])
    release = [line for line in _output(["nvcc", "--version"]).splitlines() if "release" in line]
    return {
        "gpus": [dict(zip(FIELDS, map(str.strip, line.split(",")), strict=False)) for line in smi.splitlines()],
        "nvcc": release[0].strip() if release else None,
        "python": sys.version.split()[0],
        "processors": len(os.sched_getaffinity(0)),
        "revision": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]).strip() or None,
    }


def _output(command: list[str]) -> str:
    """What a command prints; nothing where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _run(part: Part, folder: Path, log: io.BufferedWriter, left: float, rehearse: bool) -> dict[str, Any]:
    """Run one part, or say why it was not run; what is known of it afterwards."""
    record: dict[str, Any] = {"name": part.name, "title": part.title, "outcome": "passed", "reason": "", "seconds": 0.0}
    if rehearse and part.on_gpu_only:
        return record | {"outcome": "left out", "reason": "needs a GPU"}
    if part.tool is not None and shutil.which(part.tool) is None:
        return record | {"outcome": "left out", "reason": f"{part.tool} is not here: it is part of the CUDA toolkit"}
    if left < LEAST:
        return record | {"outcome": "not run", "reason": "the time for all parts was used up"}
    result, output = folder / f"{part.name}.result", folder / f"{part.name}.log"
    limit = min(part.seconds * (SLOWER if rehearse else 1), left)
    command = _command(part, result, rehearse)
    begin = time.monotonic()
    with open(output, "wb") as file:
        code, stopped = _execute(command, file, limit, rehearse)
    record["seconds"] = round(time.monotonic() - begin, 1)
    text = output.read_bytes()[-KEPT:]
    log.write(f"\n==== {part.name}: {' '.join(command)}\n".encode() + text)
    log.write(f"\n==== {part.name}: exit status {code} after {record['seconds']} s\n".encode())
    log.flush()
    record |= read(part, result, text.decode(errors="replace"))
    if record["outcome"] == "left out":
        return record
    if stopped:
        return record | {"outcome": "stopped", "reason": f"not done after {limit:.0f} s"}
    if rehearse and record["reason"] == NOTHING:
        return record | {"outcome": "left out", "reason": "its tests need a GPU"}
    if code != 0 and not record["reason"]:
        record["reason"] = f"exit status {code}; its output is in gpu.log"
    return record | {"outcome": "failed" if record["reason"] else "passed"}


def _command(part: Part, result: Path, rehearse: bool) -> list[str]:
    """The part's words with the gaps filled in; a gap filled with nothing is no word."""
    gaps = {
        "{python}": sys.executable,
        "{device}": "cpu" if rehearse else "cuda",
        "{size}": "--small" if rehearse else "",
    }
    words = [gaps.get(word, word).replace("{result}", str(result)) for word in part.words]
    words = [word for word in words if word]
    if part.workers and not rehearse and importlib.util.find_spec("xdist") is not None:
        words += ["-n", str(min(part.workers, len(os.sched_getaffinity(0))))]
    if part.result == "tests" and importlib.util.find_spec("pytest_timeout") is not None:
        words += [f"--timeout={part.seconds * 0.7:.0f}"]  # so that one that hangs leaves a report
    return words


def _execute(command: list[str], file: Any, limit: float, rehearse: bool) -> tuple[int, bool]:
    """The exit status, and whether the command had to be stopped: asked first, then ended with all it has started."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    if command[0] == "compute-sanitizer":  # the allocator's reuse would hide a step beyond an array's end
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    if "-n" in command:  # pytest's workers share the processors
        threads = max(1, len(os.sched_getaffinity(0)) // int(command[command.index("-n") + 1]))
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    if rehearse:
        environment["DEEPCLUST_REHEARSE_CUDA"] = "1"
    process = subprocess.Popen(
        command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        return process.wait(limit), False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # pytest writes its report
    try:
        code = process.wait(GRACE)
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    _end(process)
    return code, code != 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever the command has started and left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
