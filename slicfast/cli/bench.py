"""`slicfast bench ...`: what the parts that decide the speed cost on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slicfast.cli.output import OutputOption, SetOption, examples, say, table

if TYPE_CHECKING:
    from slicfast.config import Config

ConfigArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG]", help="YAML file; the defaults unless given.", show_default=False),
]
RunsOption = Annotated[int | None, typer.Option(min=1, help="Measured repetitions.", show_default=False)]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Measure what loading, a step and clustering cost here.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    group.command(
        epilog=examples(
            ("slicfast bench loader --output loader.json", ""),
            (
                "slicfast bench loader configs/ucf101_r3d18.yaml --store data/ucf101 --threads 0",
                "as training loads",
            ),
            ("slicfast bench loader --source all --threads 0", "store, memory and files side by side"),
        )
    )(loader)
    group.command(epilog=examples(("slicfast bench step configs/demo.yaml --samples 4", "")))(step)
    group.command(
        epilog=examples(
            ("slicfast bench cluster --output cluster.json", ""),
            ("slicfast bench cluster --device cuda --large", "the sizes of Kinetics-700"),
        )
    )(cluster)
    group.command(epilog=examples(("slicfast bench train configs/demo.yaml", "is loading hidden?")))(train)
    app.add_typer(group, name="bench")


def loader(
    config: ConfigArgument = None,
    overrides: SetOption = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Clip store to load from; unless said, moving textures of 171 x 128.", show_default=False
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of DALI and of torch; 0: one a core.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Clips a batch.")] = 16,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare ways to read clips instead: store, resident, files or all; may be given again.",
            show_default=False,
        ),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of the files: h264, mpeg4, vp9; all unless said; may be given again.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu or cuda, in place of train.device.", show_default=False),
    ] = None,
    runs: RunsOption = None,
    output: OutputOption = None,
) -> None:
    """Time clips from stored JPEG to normalised tensor, a stage at a time, beside DALI's own operators.

    With --source, films drawn for the purpose are read in every way, and what holds each back is named.
    Without CONFIG the defaults are measured, with crops of 112 x 112.
    """
    from slicfast.config import Config

    crop = () if config is not None else ("data.crop_size=112",)
    place = () if device is None else (f"train.device={device}",)
    settings = Config.load(config, (*crop, *(overrides or ()), *place))
    if source:
        _sources(settings, source, codec, threads, batch, runs, output)
        return

    from slicfast.bench.loader import COLUMNS, bench_loader, table_rows
    from slicfast.data.store import ClipStore

    found = None if store is None else ClipStore(store)
    result = bench_loader(
        settings, store=found, num_threads=threads, batch_size=batch, **_given(num_runs=runs)
    )
    frames, rows, columns = result["clip"]
    stored = " x ".join(map(str, result["stored"]))
    table(
        f"{frames} frames of {stored} to {columns} x {rows}, {result['num_threads']} thread(s)",
        COLUMNS,
        table_rows(result),
    )
    _write(output, "loader", result)


def _sources(
    settings: Config,
    sources: list[str],
    codecs: list[str] | None,
    threads: int,
    batch: int,
    runs: int | None,
    output: Path | None,
) -> None:
    from slicfast.bench.sources import COLUMNS, SOURCES, bench_sources, table_rows

    result = bench_sources(
        settings,
        sources=SOURCES if "all" in sources else tuple(dict.fromkeys(sources)),
        batch_sizes=(batch,),
        num_threads=threads,
        **_given(num_runs=runs, codecs=codecs),
    )
    frames, rows, columns = result["clip"]
    title = f"{frames} frames to {columns} x {rows} on {result['device']}, {result['num_threads']} thread(s)"
    table(title, COLUMNS, table_rows(result))
    for line in result["missing"]:
        say(line)
    if result["pcie_gbs"] is not None:
        say(f"pinned memory to the GPU: {result['pcie_gbs']:.1f} GB/s")
    _write(output, "loader-sources", result)


def step(
    config: ConfigArgument = None,
    overrides: SetOption = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, help="Samples a step, in place of train.batch_size.", show_default=False),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda, in place of train.device.", show_default=False)
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also with torch.compile; it takes a minute each.")
    ] = False,
    runs: RunsOption = None,
    output: OutputOption = None,
) -> None:
    """Time a training step without its data: each switch alone, all together, and the triplet loss.

    Switches are the precision, the memory layout, the form of the first convolution, the fused optimizer, the
    CUDA graph, averaged weights (which save nothing) and, with --compile, the compiler. The achieved rate
    stands beside a matrix product's here.
    """
    from slicfast.config import Config

    chosen = () if device is None else (f"train.device={device}",)
    settings = Config.load(config, (*(overrides or ()), *chosen))

    from slicfast.bench.step import COLUMNS, bench_step, table_rows

    result = bench_step(settings, num_samples=samples, compiled=compiled, **_given(num_runs=runs))
    table(f"A training step of {result['num_clips']} clips", COLUMNS, table_rows(result))
    for found in result["variants"]:
        if "error" in found:
            say(f"{found['variant']} failed: {found['error']}")
    if result["gflops_a_clip"] is not None:
        say(f"{result['gflops_a_clip']:.1f} GFLOP a clip, forward and backward")
    for ceiling in result["ceilings"].values():
        _say_ceilings(ceiling)
    loss = result["triplet_loss"]
    cost_ms = loss["cost"]["cpu_ms"]
    say(f"triplet loss of {loss['num_pairs']} pairs, forward and backward: {cost_ms:.2f} CPU ms")
    _write(output, "step", result)


def cluster(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch and of scikit-learn.")] = 1,
    runs: RunsOption = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers/--no-peers", help="Also time scikit-learn, cuML, faiss and flash-kmeans where installed."
        ),
    ] = True,
    large: Annotated[
        bool, typer.Option("--large", help="650,000 and 1,000,000 rows, as a GPU wants them.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Time FINCH, exact first neighbours and k-means on random embeddings, by every backend.

    Rates are set beside a matrix product and a copy as this machine was measured to do them.
    """
    from slicfast.bench.cluster import COLUMNS, LARGE, bench_cluster, table_rows

    sizes: dict[str, Any] = LARGE if large else {}
    result = bench_cluster(
        device=device, num_threads=threads, with_peers=peers, **sizes, **_given(num_runs=runs)
    )
    table("Clustering", COLUMNS, table_rows(result))
    _say_ceilings(result["ceilings"])
    _write(output, "cluster", result)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run to measure.")],
    overrides: SetOption = None,
    blocks: Annotated[
        int | None, typer.Option(min=1, help="Blocks of steps of each kind.", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps a block.", show_default=False)] = None,
    output: OutputOption = None,
) -> None:
    """Time training on clips from the store beside the same steps on a batch that is there already.

    The ratio says how much of the loading hides behind the step; the last column sets the network's
    floating-point operations beside a matrix product on this machine.
    """
    from slicfast.config import Config

    settings = Config.load(config, overrides or ())

    from slicfast.bench.train import COLUMNS, bench_train, table_rows

    result = bench_train(settings, **_given(num_blocks=blocks, steps_per_block=steps))
    table(f"Training, {result['clips_per_step']} clips a step", COLUMNS, table_rows(result))
    say(f"real clips run at {100 * result['ratio']:.1f} % of the rate without loading")
    _say_ceilings(result["ceilings"])
    _write(output, "train", result)


def _say_ceilings(ceilings: dict[str, Any]) -> None:
    say(
        f"ceilings here: {ceilings['tflops']:.3g} TFLOP/s in {ceilings['precision']},"
        f" copies at {ceilings['copy_gbs']:.3g} GB/s"
    )


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others keep the defaults of what is called."""
    return {name: value for name, value in options.items() if value is not None}


def _write(output: Path | None, benchmark: str, result: dict[str, Any]) -> None:
    if output is None:
        return
    from slicfast.bench.harness import write_result

    write_result(output, benchmark, result)
    say(f"written to {output}")
