"""Everything that must be checked and measured on a GPU, in stages, the most valuable first.

python benchmarks/gpu_suite.py OUT.json                        all stages, each in a process of its own
python benchmarks/gpu_suite.py OUT.json --stages tests,step    some of them
python benchmarks/gpu_suite.py OUT.json --device cpu --quick   does the suite itself work? (no GPU needed)

Each stage merges what it found into OUT.json as soon as it has it, and a stage that fails or takes too long
leaves its error there and costs nothing but itself. What does not fit into `--budget` seconds is left to the
next call: a second call goes on with the stages that are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where this file is run by its path

from benchmarks.stages import ROOT, STAGES, Context, main, shell, stage

__all__ = ["ORDER", "STAGES", "Context"]

# The headline first: is it right, how fast is a step, does training keep up, how fast are clips, clusters.
ORDER = (
    *("environment", "ceilings", "tests", "step", "training", "sources", "cluster", "cluster_rapids"),
    *("kernel_tests", "loader", "hardware_flow", "compiled_step", "convolutions", "cluster_peers", "profile"),
)
KERNEL_TESTS = "tests/clustering/test_rapids.py"


@stage(limit_s=90)
def environment(context: Context) -> Any:
    """Driver, libraries and versions, as the machine tells them."""
    import ctypes

    loaded = {}
    for name in ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-opticalflow.so.1", "libnvjpeg.so.12"):
        try:
            ctypes.CDLL(name)
            loaded[name] = "loads"
        except OSError as error:
            loaded[name] = str(error)
    packages = ("torch", "torchvision", "cupy-cuda13x", "cuml-cu13", "nvidia-dali-cuda130", "pandas")
    shown = shell(sys.executable, "-m", "pip", "show", *packages, "nvidia-nvjitlink-cu12", "nvidia-nvjitlink")
    return {
        "nvidia_smi": shell("nvidia-smi", "-q", "-d", "MEMORY,CLOCK,UTILIZATION"),
        "tools": {name: shell("which", name) for name in ("nsys", "ncu", "nvcc")},
        "loaded": loaded,
        "packages": [line for line in shown.get("output", "").splitlines() if line[:4] in ("Name", "Vers")],
        "doctor": shell(sys.executable, "-m", "slicfast", "doctor", timeout_s=80),
    }


@stage(limit_s=60)
def ceilings(context: Context) -> Any:
    """Matrix product and copy, the rates that all others are held against."""
    import torch

    from slicfast.bench.ceilings import measure_ceilings

    size = 256 if context.quick else None
    device = torch.device(context.device)
    return [
        measure_ceilings(device, precision, size=size).to_dict() for precision in ("fp32", "bf16", "fp16")
    ]


@stage(limit_s=300)
def tests(context: Context) -> Any:
    """The tests that need a GPU; without one they must not pass for skipped."""
    # Kernels of our own have a stage of their own: after an illegal access nothing runs in that process.
    return _pytest(context, f"--ignore={KERNEL_TESTS}")


@stage(limit_s=200)
def kernel_tests(context: Context) -> Any:
    """Every clustering backend beside the CPU's labels; what is copied to the host."""
    return _pytest(context, KERNEL_TESTS)


def _pytest(context: Context, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "needs_cuda", "-n", "0", "--timeout", "120"]
    if context.quick:
        command.append("--collect-only")
    needed = {"SLICFAST_REQUIRE_CUDA": "1"} if context.device == "cuda" else {}
    return shell(*command, *arguments, timeout_s=290, env=needed)


@stage(limit_s=60)
def convolutions(context: Context) -> Any:
    """Every convolution of the published recipe in bf16 beside float32, in each form of the first one."""
    import torch

    from slicfast.convolution_check import check_convolutions

    device = torch.device(context.device)
    forms = ("direct", "padded", "space_to_depth")
    return {
        form: check_convolutions(_recipe(context, f"model.stem={form}"), device).to_dict() for form in forms
    }


@stage(limit_s=180)
def step(context: Context) -> Any:
    """A step of the published recipe: each switch alone and all together, but for the compiler."""
    from slicfast.bench.step import bench_step

    return bench_step(_recipe(context), **_step_sizes(context))


@stage(limit_s=240)
def compiled_step(context: Context) -> Any:
    """The same compiled, alone and with all other switches; without a GPU nothing is generated."""
    import torch

    from slicfast.bench.step import BASELINE, bench_step, variants_for

    variants = variants_for(torch.device(context.device), compiled=not context.quick)
    compiled = [BASELINE, *(variant for variant in variants[1:] if variant.compile)]
    return bench_step(_recipe(context), variants=compiled, **_step_sizes(context))


def _step_sizes(context: Context) -> dict[str, Any]:
    sizes = {"num_samples": context.number(32, 2), "num_runs": context.number(10, 1)}
    return {**sizes, "ceiling_size": context.number(0, 64) or None}


@stage(limit_s=120)
def loader(context: Context) -> Any:
    """Clips a second from a store of moving textures, all augmentations."""
    from slicfast.bench.loader import bench_loader

    sizes = {"batch_size": context.number(96, 2), "num_runs": context.number(9, 1)}
    return bench_loader(_recipe(context, "data.crop_size=128"), num_threads=0, **sizes)


@stage(limit_s=150)
def hardware_flow(context: Context) -> Any:
    """Flow computed while loading: exactness beside DIS, and clips a second beside those of stored flow."""
    import torch

    from benchmarks.hardware_flow import bench_hardware_flow
    from slicfast.bench.loader import WHOLE, bench_loader

    on_gpu = context.device == "cuda"
    sizes = {"num_pairs": context.number(40, 4), "num_runs": context.number(7, 1)}
    found: dict[str, Any] = {"exactness": bench_hardware_flow(torch.device(context.device), **sizes)}
    for source in ("stored", "hardware") if on_gpu else ():
        view = ("motion.view=flow", "motion.prob=1", f"flow.source={source}")  # two clips in three
        loaded = bench_loader(
            _recipe(context, *view), num_threads=0, batch_size=context.number(96, 2), num_runs=5
        )
        found[source] = next(stage for stage in loaded["stages"] if stage["what"] == WHOLE)
    return found if on_gpu else {**found, "skipped": "without a GPU there is no engine: DIS alone"}


@stage(limit_s=180)
def sources(context: Context) -> Any:
    """Every way to read clips: stores, memory, files through NVDEC; its parts; other decoders; PCIe."""
    from slicfast.bench.sources import bench_sources

    return bench_sources(
        _recipe(context, "data.crop_size=128"),
        codecs=("mpeg4",) if context.quick else ("h264", "mpeg4", "vp9"),
        batch_sizes=(2,) if context.quick else (32, 96),
        num_runs=context.number(5, 1),
    )


@stage(limit_s=150)
def cluster(context: Context) -> Any:
    """FINCH, first neighbours and k-means by torch, at the sizes of UCF101 and of Kinetics-700."""
    return _clustering(context, ["torch"])


@stage(limit_s=150)
def cluster_rapids(context: Context) -> Any:
    """The same by CuPy's kernels and by cuML."""
    return _clustering(context, ["cupy", "cuml"] if context.device == "cuda" else [])


@stage(limit_s=240)
def cluster_peers(context: Context) -> Any:
    """The same data for cuML, faiss and flash-kmeans, where they are installed."""
    return _clustering(context, [], with_peers=True)


def _clustering(context: Context, backends: list[str], with_peers: bool = False) -> Any:
    from slicfast.bench.cluster import LARGE, bench_cluster

    small: dict[str, Any] = {"finch_rows": (500,), "neighbor_rows": (500,), "kmeans_rows": 500}
    small |= {"num_clusters": 10, "ceiling_size": 256}
    return bench_cluster(
        device=context.device,
        num_runs=context.number(3, 1),
        backends=backends,
        with_peers=with_peers,
        **(small if context.quick else LARGE),
    )


@stage(limit_s=300)
def training(context: Context) -> Any:
    """Real clips beside batches that are on the GPU already: the headline's ratio, waiting and memory."""
    from slicfast.bench.train import bench_train

    blocks = {"num_blocks": context.number(5, 1), "steps_per_block": context.number(40, 1)}
    config = _recipe(context, f"data.store={_store(context)}")
    return bench_train(config, num_warmup=context.number(10, 1), **blocks)


@stage(limit_s=120)
def profile(context: Context) -> Any:
    """The dearest kernels of a step and the share of time without one."""
    from slicfast.bench.profile import profile as run

    found = run(
        _recipe(context, f"data.store={_store(context)}"),
        context.folder / "profile",
        tool="torch",
        num_steps=context.number(10, 1),
        num_warmup=context.number(10, 0),
    )
    return found.to_dict()


def _recipe(context: Context, *overrides: str) -> Any:
    """The published recipe, or a far smaller one where only the suite is tried."""
    from slicfast.config import Config

    small = ("model.name=slic_r3d_10", "model.width=0.125", "data.clip_length=4", "data.crop_size=32")
    given = [f"train.device={context.device}", "motion.view=difference", *(small if context.quick else ())]
    if context.quick:
        given.append("train.batch_size=4")
        overrides = tuple(item for item in overrides if not item.startswith("data.crop_size"))
    return Config.load(ROOT / "configs" / "ucf101_r3d18.yaml", ["data.train_split=train", *given, *overrides])


def _store(context: Context) -> Path:
    """A clip store of procedural videos, made once."""
    from slicfast.data.catalog import read_catalog
    from slicfast.data.prepare import prepare
    from slicfast.data.synthetic import SyntheticConfig, write_dataset

    store = context.folder / "store"
    if not (store / "store.json").exists():
        videos = context.folder / "videos"
        groups = context.number(8, 1)
        write_dataset(videos, SyntheticConfig(train_groups=groups, val_groups=0, test_groups=0))
        prepare(read_catalog(videos), store)
    return store


if __name__ == "__main__":
    main(__file__, __doc__, ORDER)
