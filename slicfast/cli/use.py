"""`slicfast embed`, `search` and `export`: vectors of any videos, the nearest to one, networks for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from slicfast.cli.output import examples, say, table

RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT", help="Run folder (its best checkpoint, else its last) or a checkpoint."
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one.")
]
NUM_LEFT_OUT_SHOWN = 10


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast embed runs/demo videos/ -o features.npz", "a folder"),
            (
                "slicfast embed runs/demo 'clips/**/*.mp4' more.txt -o features.parquet",
                "a pattern and a list",
            ),
            (
                "slicfast embed runs/demo long.mkv --windows 4 --hop 2 -o index.npz",
                "for search inside videos",
            ),
        )
    )(embed)
    app.command(
        epilog=examples(
            ("slicfast search index.npz query.mp4 -k 10", ""),
            ("slicfast search index.npz match.mkv --start 12 --end 15", "look for these three seconds"),
        )
    )(search)
    app.command(
        epilog=examples(
            ("slicfast export runs/demo --to onnx -o encoder.onnx", ""),
            (
                "slicfast export runs/demo --to safetensors -o encoder.safetensors",
                "every command reads it",
            ),
        )
    )(export)


def embed(
    run: RunArgument,
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEOS...", help="Files, folders, patterns in quotes, or lists (.txt, .csv)."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="features.npz or features.parquet.")
    ],
    features: Annotated[
        Literal["pooled", "projection"], typer.Option(help="pooled: the backbone's, the ones to use.")
    ] = "pooled",
    num_clips: Annotated[
        int | None,
        typer.Option(
            min=1, help="Clips a video, evenly spaced; as the run evaluates (10).", show_default=False
        ),
    ] = None,
    windows: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="A row for each sliding window of this length.", show_default=False
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="From one window to the next; half a window.", show_default=False
        ),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            min=8, help="Pixels to scale to first: the training store's short side (128).", show_default=False
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Resample to this; every picture unless said.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; a core each.", show_default=False)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a video that cannot be read, else leave it out.")
    ] = False,
) -> None:
    """Turn videos into vectors: any files that FFmpeg reads, no store needed.

    Stopped or killed, the same command goes on where it was; run again with more videos, it does only those.
    """
    from slicfast.evaluation.features_file import require_writable_kind

    require_writable_kind(output)

    from slicfast.engine.video_embedding import Encoder
    from slicfast.evaluation.embed_files import embed_files, find_videos

    found = find_videos(videos)
    encoder = Encoder.from_checkpoint(run, device)
    plan = encoder.plan_for(num_clips=num_clips, short_side=short_side, fps=fps, window_s=windows, hop_s=hop)
    made = embed_files(
        encoder, found, output, features=features, plan=plan, num_threads=threads, strict=strict
    )
    for name, reason in list(made.left_out.items())[:NUM_LEFT_OUT_SHOWN]:
        say(f"left out {name}: {reason}")
    if len(made.left_out) > NUM_LEFT_OUT_SHOWN:
        say(f"... and {len(made.left_out) - NUM_LEFT_OUT_SHOWN} more, named in {output}")
    what = f"{made.num_rows} windows of {made.num_videos} videos" if windows else f"{made.num_videos} videos"
    now = "nothing was left to do" if not made.num_done else f"embedded now: {made.num_done}"
    left = f", left out: {len(made.left_out)}" if made.left_out else ""
    say(f"{output} holds {what}, {made.dim} numbers each; {now}{left}")


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Features file that 'slicfast embed' made.")],
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="Video to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to find.")] = 10,
    start: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Look for a part of it.", show_default=False)
    ] = None,
    end: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Where that part ends.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Where the index's network is now; it remembers it.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Find the videos, or the seconds inside long videos, most like a query.

    Exact, by cosine. The query is embedded by the network that made the index; another one is refused.
    """
    from slicfast.evaluation.features_file import FeaturesFile

    opened = FeaturesFile(index)

    from slicfast.evaluation.search import embed_query, query_encoder
    from slicfast.evaluation.search import search as find

    encoder = query_encoder(opened, checkpoint, device)
    (hits,) = find(opened, embed_query(encoder, opened, query, start, end), k)
    if as_json:
        say(json.dumps([hit.to_dict() for hit in hits], indent=2))
        return
    table(
        f"{query} in {opened.num_rows} rows of {len(opened.table.ids)} videos",
        ("video", "similarity", "from", "to"),
        [(hit.id, f"{hit.similarity:.4f}", clock(hit.start_s), clock(hit.end_s)) for hit in hits],
    )


def export(
    run: RunArgument,
    to: Annotated[
        Literal["safetensors", "onnx", "torchscript"], typer.Option("--to", help="The form to write.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    features: Annotated[
        Literal["pooled", "projection"] | None,
        typer.Option(
            help="pooled: the backbone alone; projection: the whole encoder, safetensors' default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a trained network for other programs, with what they must know to feed it.

    The file is checked against the original on random clips; one that computes otherwise is not kept.
    """
    from slicfast.export.export import export_model

    made = export_model(run, to, output, features)
    sizes = "any frames, rows and columns" if made.free_sizes else "clips of the trained size"
    say(
        f"{output}: {made.features} ({made.dim}), {made.num_bytes / 2**20:.1f} MiB, any batch, {sizes};"
        f" largest error on random clips {made.max_error:.1e} (features reach {made.largest:.2g})"
    )


def clock(seconds: float) -> str:
    """`0:07.5`, `1:02:03.0`: what a player shows, and a tenth."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:{minutes:02}' if hours else minutes}:{rest // 10:02}.{rest % 10}"
