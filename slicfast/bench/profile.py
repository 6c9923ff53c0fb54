"""`slicfast profile`: some steps of a real run under a profiler, and what they say.

Nsight Systems where it is installed and there is a GPU, Nsight Compute on request, torch's profiler otherwise
and on a CPU. The run goes into a folder of its own that is removed afterwards.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicfast.bench.trace import Kernel, TraceSummary, covered, dearest, read_trace, summarize
from slicfast.config import Config
from slicfast.device import resolve_device
from slicfast.errors import ConfigError, MachineError, RunError, one_of
from slicfast.profiling import Window
from slicfast.training.loop import train

TOOLS = ("auto", "torch", "nsys", "ncu")
WINDOW_COLUMNS = ("where the host's time goes", "ms a step", "share")
KERNEL_COLUMNS = ("dearest kernels", "ms a step", "calls a step", "share")


@dataclass(frozen=True)
class Profile:
    """What was found, and the file to look at: a trace for Perfetto, or an Nsight report."""

    tool: str
    file: Path
    num_steps: int
    summary: TraceSummary | None  # None for Nsight Compute, whose report is read in its own window

    def to_dict(self) -> dict[str, Any]:
        summary = None if self.summary is None else self.summary.to_dict()
        return {"tool": self.tool, "file": str(self.file), "num_steps": self.num_steps, "summary": summary}


def profile(
    config: Config,
    out: Path,
    *,
    tool: str = "auto",
    num_steps: int = 10,
    num_warmup: int = 5,
    with_clustering: bool = False,
) -> Profile:
    """Train `num_warmup + num_steps` steps and look into the last `num_steps`.

    Args:
        out: folder for the trace or report; existing ones of the same name are replaced.
        tool: one of TOOLS.
        with_clustering: let the run cluster as configured; else every video stays its own cluster, so that a
            large data set need not be embedded first.

    Raises:
        ConfigError: an unknown tool, or a run that is over before its first step to look into.
        MachineError: the tool is not installed, or is Nsight and there is no GPU.
        RunError: the profiler failed.
    """
    device = resolve_device(config.train.device)
    tool = choose_tool(tool, on_gpu=device.type == "cuda")
    changes: dict[str, Any] = {"eval": config.eval.model_copy(update={"query_split": None})}
    if not with_clustering:
        changes["cluster"] = config.cluster.model_copy(update={"method": "none"})
    config = config.model_copy(update=changes)
    out.mkdir(parents=True, exist_ok=True)
    first, last = num_warmup, num_warmup + num_steps
    with tempfile.TemporaryDirectory(prefix="slicfast-profile-") as folder:
        if tool == "torch":
            file = out / "trace.json.gz"
            run = train(config, Path(folder) / "run", max_steps=last, window=Window(first, last, file))
            if run.global_step <= first:
                raise ConfigError(
                    f"the run is over after {run.global_step} steps, before the first to look into;"
                    f" lower --warmup below {run.global_step} or raise train.epochs"
                )
            return Profile(tool, file, run.global_step - first, summarize(read_trace(file)))
        settings = Path(folder) / "config.yaml"
        settings.write_text(config.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "slicfast", "train", str(settings), "--run", f"{folder}/run"]
        command += ["--max-steps", str(last), "--profile-steps", f"{first}:{last}"]
        if tool == "nsys":
            file = out / "report.nsys-rep"
            _run([*NSYS_PROFILE, "--output", str(file), *command])
            return Profile(tool, file, num_steps, summarize_nsys(file))
        file = out / "report.ncu-rep"
        _run([*NCU_PROFILE, "--export", str(file), *command])
        return Profile(tool, file, num_steps, None)


NSYS_PROFILE = (
    *("nsys", "profile", "--trace", "cuda,nvtx,osrt,cudnn,cublas", "--sample", "none"),
    *("--capture-range", "cudaProfilerApi", "--capture-range-end", "stop", "--force-overwrite", "true"),
    "--cuda-graph-trace=node",  # a recorded step by its kernels, not as one block
)
# A basic section set: Compute runs each kernel once a pass, and the whole set takes forty of them.
NCU_PROFILE = ("ncu", "--profile-from-start", "off", "--set", "basic", "--nvtx", "--force-overwrite")


def choose_tool(tool: str, *, on_gpu: bool) -> str:
    """The tool to use. Raises ConfigError for an unknown one, MachineError for one that cannot work here."""
    if tool not in TOOLS:
        raise ConfigError(one_of("tool", tool, TOOLS))
    if tool == "auto":
        return "nsys" if on_gpu and shutil.which("nsys") else "torch"
    if tool != "torch":
        if not on_gpu:
            raise MachineError(f"{tool} looks at GPUs, and this run is on the CPU; use --tool torch")
        if shutil.which(tool) is None:
            raise MachineError(f"{tool} is not on the PATH; install NVIDIA Nsight, or use --tool torch")
    return tool


def _run(command: Sequence[str]) -> str:
    """Standard output of a command; its standard error is shown. Raises RunError where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RunError(f"{command[0]} failed with exit code {done.returncode}; its messages are above")
    return done.stdout


def summarize_nsys(report: Path) -> TraceSummary:
    """What an Nsight Systems report says. Raises RunError where nsys cannot read it."""

    def table(name: str) -> list[dict[str, str]]:
        return read_csv(_run(["nsys", "stats", "--report", name, "--format", "csv", "--quiet", str(report)]))

    return summarize_tables(table("cuda_gpu_trace"), table("nvtx_pushpop_sum"))


def read_csv(text: str) -> list[dict[str, str]]:
    """Rows of a CSV table, lines before its header passed over."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if line.count(",") >= 2), len(lines))
    return list(csv.DictReader(io.StringIO("\n".join(lines[start:]))))


def summarize_tables(gpu_trace: list[dict[str, str]], ranges: list[dict[str, str]]) -> TraceSummary:
    """From nsys's cuda_gpu_trace and nvtx_pushpop_sum, both in nanoseconds.

    Raises RunError where no kernel was seen.
    """
    if not gpu_trace:
        raise RunError("nsys saw no kernel; look for its messages above")
    starts = [float(row["Start (ns)"]) for row in gpu_trace]
    durations = [float(row["Duration (ns)"]) for row in gpu_trace]
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    window = max(ends) - min(starts)
    names = [row["Name"] for row in gpu_trace]
    return TraceSummary(
        window_ms=window / 1e6,
        on_gpu=True,
        idle_share=1.0 - covered(zip(starts, ends, strict=True)) / window,
        spans={row["Range"].lstrip(":"): float(row["Total Time (ns)"]) / 1e6 for row in ranges},
        kernels=dearest(zip(names, (duration / 1e3 for duration in durations), strict=True), 10),
    )


def span_rows(found: Profile) -> list[tuple[str, ...]]:
    """Rows under WINDOW_COLUMNS; what no span covers is told as the rest."""
    assert found.summary is not None
    summary = found.summary
    spans = [*summary.spans.items(), ("the rest", summary.window_ms - sum(summary.spans.values()))]
    return [
        (name, f"{ms / found.num_steps:.2f}", f"{100 * ms / summary.window_ms:.1f} %") for name, ms in spans
    ]


def kernel_rows(found: Profile, width: int = 70) -> list[tuple[str, ...]]:
    """Rows under KERNEL_COLUMNS."""
    assert found.summary is not None

    def row(kernel: Kernel) -> tuple[str, ...]:
        name = kernel.name if len(kernel.name) <= width else f"{kernel.name[: width - 3]}..."
        calls = kernel.num_calls / found.num_steps
        return name, f"{kernel.ms / found.num_steps:.2f}", f"{calls:g}", f"{100 * kernel.share:.1f} %"

    return [row(kernel) for kernel in found.summary.kernels]
