"""`slicfast synth`: drawn videos of people in action, and the factors that decide what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slicfast.cli.data import format_bytes
from slicfast.cli.output import examples, say
from slicfast.progress import track

_FACTORS = "What tells nothing about the class (defaults: the demo's)"


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast synth data/demo --seed 1", ""),
            ("slicfast synth data/hard --camera 0.5 --texture 0.5 --place 0.2 --figure-size 0.5,0.7", ""),
            (
                "slicfast synth data/shared --shared-scenes --min-videos 1 --max-videos 1",
                "scenes mislead",
            ),
        )
    )(synth)


def synth(
    root: Annotated[
        Path,
        typer.Argument(metavar="ROOT", help="Folder to write; new or empty, or this same set begun before."),
    ],
    seed: Annotated[
        int | None, typer.Option(help="Decides every body, scene and camera.", show_default=False)
    ] = None,
    actions: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Classes, with commas between.", show_default=False)
    ] = None,
    train_groups: Annotated[
        int | None, typer.Option(help="Training scenes a class.", show_default=False)
    ] = None,
    val_groups: Annotated[
        int | None, typer.Option(help="Validation scenes a class.", show_default=False)
    ] = None,
    test_groups: Annotated[int | None, typer.Option(help="Test scenes a class.", show_default=False)] = None,
    min_videos: Annotated[
        int | None, typer.Option(help="Fewest videos of a class in a scene.", show_default=False)
    ] = None,
    max_videos: Annotated[
        int | None, typer.Option(help="Most videos of a class in a scene.", show_default=False)
    ] = None,
    shared_scenes: Annotated[
        bool | None,
        typer.Option(
            "--shared-scenes", help="Every scene shows all classes, not one as in UCF101.", show_default=False
        ),
    ] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames a video.", show_default=False)] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default=False)] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default=False)] = None,
    camera: Annotated[
        float | None,
        typer.Option(
            help="Panning and zooming; 0 a tripod, 1 a hand.", rich_help_panel=_FACTORS, show_default=False
        ),
    ] = None,
    texture: Annotated[
        float | None,
        typer.Option(
            help="Contrast of the background's pattern; 0 none.", rich_help_panel=_FACTORS, show_default=False
        ),
    ] = None,
    place: Annotated[
        float | None,
        typer.Option(
            help="Sideways from the middle, picture widths.", rich_help_panel=_FACTORS, show_default=False
        ),
    ] = None,
    rise: Annotated[
        float | None,
        typer.Option(
            help="Up and down from the floor, picture heights.", rich_help_panel=_FACTORS, show_default=False
        ),
    ] = None,
    glide: Annotated[
        float | None,
        typer.Option(
            help="How far figures move, picture widths.", rich_help_panel=_FACTORS, show_default=False
        ),
    ] = None,
    figure_size: Annotated[
        str | None,
        typer.Option(
            metavar="LEAST,MOST",
            help="Height of figures, picture heights.",
            rich_help_panel=_FACTORS,
            show_default=False,
        ),
    ] = None,
    body_variation: Annotated[
        float | None,
        typer.Option(help="How bodies differ; 1 is 15 %.", rich_help_panel=_FACTORS, show_default=False),
    ] = None,
    tempo_variation: Annotated[
        float | None,
        typer.Option(
            help="Deviation of the tempo's logarithm.", rich_help_panel=_FACTORS, show_default=False
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0: one a core.", min=0)] = 0,
) -> None:
    """Write a small data set of drawn people in action, as real video files.

    Bodies, textures and places of the test videos are never seen in training: motion alone tells the class.
    A set that is there already is left as it is, an interrupted one is completed.
    """
    from slicfast.data.synthetic import SyntheticConfig, write_dataset

    given: dict[str, Any] = {
        "seed": seed,
        "actions": None if actions is None else tuple(name.strip() for name in actions.split(",")),
        "train_groups": train_groups,
        "val_groups": val_groups,
        "test_groups": test_groups,
        "min_videos": min_videos,
        "max_videos": max_videos,
        "shared_scenes": shared_scenes,
        "num_frames": num_frames,
        "width": width,
        "height": height,
        "camera": camera,
        "texture": texture,
        "place": place,
        "rise": rise,
        "glide": glide,
        "figure_size": None if figure_size is None else _two_numbers(figure_size),
        "body_variation": body_variation,
        "tempo_variation": tempo_variation,
    }
    config = SyntheticConfig(**{name: value for name, value in given.items() if value is not None})
    with track("Drawing", unit="videos") as bar:
        summary = write_dataset(root, config, workers, bar.report)
    counts = ", ".join(f"{number} {split}" for split, number in summary.num_videos.items())
    state = f"{summary.num_written} written now" if summary.num_written else "all there already"
    say(f"{root}: {counts} videos of {summary.num_classes} classes, {format_bytes(summary.bytes)} ({state})")
    say(f"next: slicfast prepare {root} {root}-store")


def _two_numbers(text: str) -> tuple[float, float]:
    from slicfast.errors import ConfigError

    try:
        least, most = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--figure-size must be two numbers with a comma between, such as 0.5,0.7; got '{text}'"
        ) from None
    return least, most
