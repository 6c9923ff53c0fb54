"""The configuration: what it accepts, and how it says what it does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from slicfast.config import Config, all_keys
from slicfast.errors import ConfigError
from slicfast.overrides import parse_overrides, read_yaml

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def message_of(*overrides: str) -> str:
    """The one line that a bad override gives."""
    with pytest.raises(ConfigError) as caught:
        Config.load(None, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert Config.load(path).to_dict()
    assert set(read_yaml(path)) <= {key.split(".")[0] for key in all_keys()}


def test_defaults_are_the_published_recipe() -> None:
    config = Config.load()
    assert (config.data.clip_length, config.data.crop_size, config.data.min_training_frames) == (16, 128, 32)
    assert (config.loss.margin, config.loss.temporal_margin, config.loss.negatives) == (
        0.2,
        0.04,
        "random_semi_hard",
    )
    assert (config.optim.lr, config.optim.momentum, config.train.batch_size, config.train.epochs) == (
        0.1,
        0.5,
        32,
        600,
    )
    assert (config.sampling.same_video_prob, config.motion.prob, config.cluster.interval) == (0.2, 0.25, 5)


def test_round_trip_through_yaml_changes_nothing(tmp_path: Path) -> None:
    config = Config.load(
        None, ["optim.lr=3e-3", "eval.resize=[40, 53]", "data.store=/a b/ü", "train.init_from=x.pt"]
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert Config.load(path) == config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_round_trip_of_shipped_configurations(path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "config.yaml"
    saved.write_text(Config.load(path).to_yaml(), encoding="utf-8")
    assert Config.load(saved) == Config.load(path)


def test_overrides_win_over_the_file_and_later_over_earlier(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("optim:\n  lr: 0.5\n  momentum: 0.1\ntrain:\n")
    config = Config.load(path, ["optim.lr=1e-3", "optim.lr=2e-3", "train.batch_size=8", "seed=7"])
    assert (config.optim.lr, config.optim.momentum, config.train.batch_size, config.seed) == (
        0.002,
        0.1,
        8,
        7,
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("2.5e2", 250.0), ("0.5", 0.5), ("3", 3.0)],
)
def test_numbers_may_be_written_as_people_write_them(text: str, value: float) -> None:
    assert Config.load(None, [f"optim.lr={text}"]).optim.lr == value


def test_null_takes_a_value_away() -> None:
    assert Config.load(None, ["optim.clip_grad_norm=1"]).optim.clip_grad_norm == 1
    assert Config.load(None, ["optim.clip_grad_norm=null"]).optim.clip_grad_norm is None


def test_parsed_overrides_are_nested_values() -> None:
    assert parse_overrides(["optim.lr=0.1", "optim.name=adamw", "seed=3"]) == {
        "optim": {"lr": 0.1, "name": "adamw"},
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("optim.lrr=1", "optim.lr"),
        ("train.batchsize=8", "train.batch_size"),
        ("trian.batch_size=8", "train"),
        ("batch_size=8", "eval.batch_size' or 'train.batch_size"),
        ("optim.epochs=8", "train.epochs"),
        ("lr=1", "optim.lr"),
        ("margins=1", "loss.margin"),
        ("loss.moco=1", "loss.moco_weight"),
        ("sed=1", "seed"),
        ("cluster.num_cluster=5", "cluster.num_clusters"),
    ],
)
def test_unknown_key_names_the_nearest(override: str, nearest: str) -> None:
    assert f"the nearest is '{nearest}'" in message_of(override)


def test_unknown_key_near_to_nothing_lists_what_there_is() -> None:
    assert "valid here: name, lr, lr_reference_batch" in message_of("optim.zzzzqqqq=1")
    assert "valid here: seed, data, augment" in message_of("zzzzqqqq.lr=1")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.batch_size=1", ("train.batch_size", "greater than or equal to 2", "got 1")),
        ("optim.lr=-1", ("optim.lr", "greater than 0", "got -1")),
        ("optim.lr=fast", ("optim.lr", "number", "got 'fast'")),
        ("cluster.method=finsh", ("cluster.method", "'finch'", "got 'finsh'")),
        ("motion.prob=1.5", ("motion.prob", "less than or equal to 1", "got 1.5")),
        ("motion.view=flwo", ("motion.view", "'flow'", "got 'flwo'")),
        ("augment.min_area=2", ("augment.min_area",)),
        ("augment.blur_kernel=4", ("augment", "blur_kernel must be odd", "got 4")),
        ("augment.max_area=0.1", ("min_area 0.25 is above max_area 0.1",)),
        ("train.accumulation_steps=5", ("train.batch_size 32 is not a multiple",)),
        ("data.crop_size=", ("data.crop_size", "got None")),
        ("optim=3", ("optim", "got 3")),
        ("optim.lr.x=3", ("optim.lr",)),
        ("optim.lr", ("section.key=value", "got 'optim.lr'")),
        ("=3", ("section.key=value",)),
        ("optim.lr=[1", ("optim.lr", "cannot read the value '[1'")),
    ],
)
def test_impossible_value_says_key_rule_and_value(override: str, parts: tuple[str, ...]) -> None:
    message = message_of(override)
    for part in parts:
        assert part in message


def test_several_faults_are_counted() -> None:
    assert "(and 1 more)" in message_of("optim.lr=-1", "train.batch_size=0")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("optim:\n  lr: [1\n", "not valid YAML at line"),
        ("just words", "must hold sections such as 'train:'; found a str"),
        ("- 1\n- 2\n", "found a list"),
        (b"\xff\xfe\x00junk", "cannot read configuration"),
        ("optim:\n  lrr: 1\n", "unknown key 'optim.lrr'; the nearest is 'optim.lr'"),
        ("a: &a [*a]\n", ""),
    ],
)
def test_unreadable_file_is_one_line_with_its_name(text: str | bytes, part: str, tmp_path: Path) -> None:
    path = write(tmp_path / "my.yaml", text)
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert part in message
    assert "\n" not in message


def test_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert Config.load(write(tmp_path / "empty.yaml", "# nothing\n")) == Config.load()


def test_missing_file_and_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file at"):
        Config.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read configuration"):
        Config.load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.yaml", "seed: 1\n")
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        Config.load(path)


def test_values_cannot_be_changed_after_validation() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config.load().optim.lr = 3  # type: ignore[misc]


def test_faithful_flow_is_horizontal() -> None:
    assert Config.load(None, ["flow.faithful=true", "motion.view=flow"]).flow.faithful
    with pytest.raises(ConfigError, match=r"set motion\.components to horizontal"):
        Config.load(None, ["flow.faithful=true", "motion.components=both"])
