"""Catalogs: every layout of videos and lists, on empty placeholder files (no video is opened)."""

import os
import re
from pathlib import Path

import pytest

from slicfast.data.catalog import Catalog, read_catalog
from slicfast.errors import ConfigError, DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def ids(catalog: Catalog) -> list[str]:
    return [video.id for video in catalog.videos]


def labels(catalog: Catalog) -> dict[str, str | None]:
    return {video.id: video.label for video in catalog.videos}


def counts(catalog: Catalog) -> dict[str, int]:
    return {name: len(split) for name, split in catalog.splits.items()}


# --- folders


def test_folder_a_class_gives_labels_and_one_split(tmp_path):
    touch(tmp_path, "walk/b.mp4", "run/a.avi", "run/deeper/c.MKV", "run/notes.txt")
    catalog = read_catalog(tmp_path)
    assert catalog.kind == "folder"
    assert labels(catalog) == {"run/a.avi": "run", "run/deeper/c.MKV": "run", "walk/b.mp4": "walk"}
    assert ids(catalog) == sorted(ids(catalog))
    assert catalog.splits == {"train": ("run/a.avi", "run/deeper/c.MKV", "walk/b.mp4")}
    assert catalog.labels == ("run", "walk")
    assert all(video.path == tmp_path / video.id and video.path.exists() for video in catalog.videos)


def test_split_folders_give_splits(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "Validation/run/b.mp4", "test/walk/c.mp4")
    catalog = read_catalog(tmp_path)
    assert catalog.kind == "folder"
    assert catalog.splits == {
        "train": ("train/run/a.mp4",),
        "val": ("Validation/run/b.mp4",),
        "test": ("test/walk/c.mp4",),
    }
    assert labels(catalog)["Validation/run/b.mp4"] == "run"


def test_videos_beside_split_folders_are_refused_by_name(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "val/run/b.mp4", "extra/run/c.mp4")
    with pytest.raises(DataError, match=r"'extra/run/c\.mp4' lies beside the split folders train, val"):
        read_catalog(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/a.mp4", "car/b.mp4")
    assert labels(read_catalog(tmp_path)) == {"train/a.mp4": "train", "car/b.mp4": "car"}


def test_a_lone_folder_above_the_classes_is_passed_through(tmp_path):
    touch(tmp_path, "UCF-101/Run/a.avi", "UCF-101/Walk/b.avi")
    assert labels(read_catalog(tmp_path)) == {"UCF-101/Run/a.avi": "Run", "UCF-101/Walk/b.avi": "Walk"}


@pytest.mark.parametrize("folder", ["", "videos/"])
def test_flat_folder_has_no_labels(tmp_path, folder):
    touch(tmp_path, f"{folder}b.mp4", f"{folder}a.webm")
    catalog = read_catalog(tmp_path)
    assert catalog.kind == "flat"
    assert labels(catalog) == {f"{folder}a.webm": None, f"{folder}b.mp4": None}
    assert counts(catalog) == {"train": 2}


def test_kind_can_be_forced(tmp_path):
    touch(tmp_path, "run/a.mp4", "walk/b.mp4")
    assert set(labels(read_catalog(tmp_path, "flat")).values()) == {None}
    only = touch(tmp_path / "one", "run/a.mp4")
    assert read_catalog(only, "folder").labels == ("run",)


def test_ucf_names_without_lists_are_a_folder_of_classes(tmp_path):
    touch(tmp_path, "Run/v_Run_g01_c01.avi", "Walk/v_Walk_g02_c01.avi")
    assert read_catalog(tmp_path).kind == "folder"


def test_extensions_match_in_any_case_and_others_are_left_out(tmp_path):
    touch(tmp_path, "a.MP4", "b.MpEg", "c.gif", "d.jpg", "e", "f.mp4.part")
    assert ids(read_catalog(tmp_path)) == ["a.MP4", "b.MpEg", "c.gif"]


def test_hidden_names_are_passed_over(tmp_path):
    touch(tmp_path, "a.mp4", "._a.mp4", ".cache/b.mp4")
    assert ids(read_catalog(tmp_path)) == ["a.mp4"]


def test_awkward_names_are_kept(tmp_path):
    names = ['it\'s "quoted" #1 %03d,ü 動画.avi', "sp ace.mp4", "v.1.2.mp4"]
    touch(tmp_path, *names)
    assert ids(read_catalog(tmp_path)) == sorted(names)


@pytest.mark.parametrize("name", ["a\nb.mp4", "a\tb.mp4", "run\r/a.mp4"])
def test_control_characters_in_names_are_refused(tmp_path, name):
    touch(tmp_path, name)
    with pytest.raises(DataError, match="control character; rename"):
        read_catalog(tmp_path)


def test_names_that_are_not_utf8_are_refused(tmp_path):
    try:
        open(os.path.join(os.fsencode(tmp_path), b"a\xff.mp4"), "wb").close()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    with pytest.raises(DataError, match="not valid UTF-8; rename"):
        read_catalog(tmp_path)


def test_links_are_followed_once_without_loops(tmp_path):
    root = touch(tmp_path / "root", "run/a.mp4", "walk/b.mp4")
    touch(tmp_path / "elsewhere", "c.mp4")
    (root / "0first").symlink_to(root / "run")  # another way to a folder that is read anyway
    (root / "run" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "jump").symlink_to(tmp_path / "elsewhere")
    (root / "walk" / "linked.mp4").symlink_to(tmp_path / "elsewhere" / "c.mp4")
    (root / "walk" / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(root / "walk" / "pipe.mp4")
    catalog = read_catalog(root)
    assert ids(catalog) == ["jump/c.mp4", "run/a.mp4", "walk/b.mp4", "walk/linked.mp4"]
    assert catalog.missing == ("walk/broken.mp4",)


def test_no_file_is_asked_about_during_a_scan(tmp_path, monkeypatch):
    touch(tmp_path, *(f"class{i % 3}/{i}.mp4" for i in range(300)))
    asked = []
    real_stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: asked.append(a[0]) or real_stat(*a, **k))
    assert len(read_catalog(tmp_path, "folder")) == 300
    assert len(asked) < 20  # folders only


# --- plain lists


def test_plain_list_with_labels_segments_quotes_spaces_and_comments(tmp_path):
    touch(tmp_path, "a.mp4", "b c.mp4", "e.mkv", "d.mp4 3.mp4", "it's, ü.avi", "long.mkv", "noext", '"q".mp4')
    listing = write(
        tmp_path / "list.txt",
        "\ufeff# a comment\r\n"
        "a.mp4 jump\r\n"
        "\r\n"
        "b c.mp4\tlong_jump\n"
        "e.mkv take.avi\n"
        "\"d.mp4 3.mp4\" 'long jump'\n"
        "it's, ü.avi\n"
        "  ./long.mkv serve 12.5 15  \n"
        "long.mkv serve 0 12.5\n"
        "long.mkv - 100 200.25\n"
        "noext jump\n"
        '"\\"q\\".mp4" jump\n'
        "gone.mp4 jump\n"
        "a.mp4 jump\n",
    )
    catalog = read_catalog(tmp_path, lists=listing)
    assert catalog.kind == "list"
    assert labels(catalog) == {
        "a.mp4": "jump",
        "b c.mp4": "long_jump",
        "d.mp4 3.mp4": "long jump",
        "e.mkv": "take.avi",
        "it's, ü.avi": None,
        "long.mkv#0-12.5": "serve",
        "long.mkv#12.5-15": "serve",
        "long.mkv#100-200.25": None,
        "noext": "jump",
        '"q".mp4': "jump",
    }
    segment = next(video for video in catalog.videos if video.id == "long.mkv#12.5-15")
    assert (segment.path, segment.start_s, segment.end_s) == (tmp_path / "long.mkv", 12.5, 15.0)
    assert catalog.missing == ("gone.mp4",)
    assert counts(catalog) == {"train": 10}


def test_list_paths_start_at_the_root_or_at_the_list(tmp_path):
    root = touch(tmp_path / "videos", "a.mp4", "run/b.mp4")
    outside = touch(tmp_path, "other/c.mp4") / "other/c.mp4"
    listing = write(tmp_path / "lists/train.txt", f"a.mp4\n../videos/run/b.mp4\n{outside}\n../videos/a.mp4\n")
    assert ids(read_catalog(root, "list", listing)) == [outside.as_posix(), "a.mp4", "run/b.mp4"]


def test_a_list_may_stand_for_the_root(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    catalog = read_catalog(write(tmp_path / "some.list", "a.mp4 1\n"))
    assert (catalog.kind, catalog.root, labels(catalog)) == ("list", tmp_path, {"a.mp4": "1"})


def test_a_folder_of_lists_gives_splits(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "splits/train.txt", "a.mp4 1\n")
    write(tmp_path / "splits/validation.list", "b.mp4 2\n")
    write(tmp_path / "splits/readme.txt", "not a list\n")
    assert read_catalog(tmp_path, "list", tmp_path / "splits").splits == {
        "train": ("a.mp4",),
        "val": ("b.mp4",),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4 jump 3", r"line 2: expected 'path \[label \[start_s end_s\]\]'"),
        ("a.mp4 long jump", r"line 2: .*put quotes around"),
        ("a.mp4 jump 1 2 3", r"line 2: expected"),
        ("a.mp4 jump 5 5", r"line 2: a segment must start at 0 or later and end after it; got 5 5"),
        ("a.mp4 jump -1 5", r"line 2: a segment"),
        ("a.mp4 jump 1 nan", r"line 2: a segment"),
        ("a.mp4 jump 1 inf", r"line 2: a segment"),
        ('"" jump', r"line 2: empty name"),
        ("a\x01.mp4", r"line 2: the name .* control character"),
        ("a.mp4 walk", r"line 2: 'a.mp4' has label 'walk' here and 'run' before"),
    ],
)
def test_bad_line_is_named_with_its_number(tmp_path, line, message):
    touch(tmp_path, "a.mp4")
    with pytest.raises(DataError, match=message):
        read_catalog(tmp_path, lists=write(tmp_path / "list.txt", f"a.mp4 run\n{line}\n"))


# --- UCF101 and HMDB51


def make_ucf(root: Path, lists: Path) -> None:
    """Two classes, three splits, spelt and ended as the official lists are."""
    touch(
        root,
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "HandstandPushups/v_HandStandPushups_g02_c01.avi",
    )
    touch(root, "Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g02_c01.avi")
    write(lists / "classInd.txt", "1 Archery\r\n2 HandstandPushups\r\n")
    for split, (train, test) in enumerate([("01", "02"), ("02", "01"), ("01", "02")], start=1):
        write(
            lists / f"trainlist0{split}.txt",
            f"Archery/v_Archery_g{train}_c01.avi 1\r\n"
            f"HandstandPushups/v_HandStandPushups_g{train}_c01.avi 2\r\n",
        )
        write(
            lists / f"testlist0{split}.txt",
            f"Archery/v_Archery_g{test}_c01.avi\r\nHandstandPushups/v_HandStandPushups_g{test}_c01.avi\r\n",
        )


@pytest.mark.parametrize(
    "place", ["root", "root/ucfTrainTestlist", "ucfTrainTestlist", "root/annotations", "."]
)
def test_ucf101_lists_are_found_in_the_usual_places(tmp_path, place):
    make_ucf(tmp_path / "root", tmp_path / place)
    catalog = read_catalog(tmp_path / "root")
    assert catalog.kind == "ucf101"
    assert counts(catalog) == {f"{role}{n}": 2 for role in ("test", "train") for n in (1, 2, 3)}
    assert catalog.splits["train1"] == (
        "Archery/v_Archery_g01_c01.avi",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
    )
    assert catalog.labels == ("Archery", "HandstandPushups")
    assert catalog.missing == ()


def test_ucf101_matches_other_case_container_and_folder(tmp_path):
    make_ucf(tmp_path / "made", tmp_path / "ucfTrainTestlist")
    root = touch(
        tmp_path / "root",
        "HandStandPushups/v_HandstandPushups_g01_c01.mp4",
        "deeper/HandStandPushups/v_HandStandPushups_g02_c01.AVI",
        "Archery/v_Archery_g01_c01.webm",
    )
    catalog = read_catalog(root, "ucf101")
    assert len(catalog) == 3
    assert catalog.missing == ("Archery/v_Archery_g02_c01.avi",)
    assert labels(catalog)["HandStandPushups/v_HandstandPushups_g01_c01.mp4"] == "HandstandPushups"


def test_ucf101_prefers_the_listed_file_among_copies(tmp_path):
    make_ucf(tmp_path / "root", tmp_path / "root")
    touch(tmp_path / "root", "Archery/v_Archery_g01_c01.mp4", "A_copy/v_Archery_g01_c01.avi")
    assert "Archery/v_Archery_g01_c01.avi" in read_catalog(tmp_path / "root").splits["train1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Archery/v_Archery_g01_c01.avi 3", "line 1: class 3 is not in classInd.txt, which numbers 1 to 2"),
        (
            "Archery/v_Archery_g01_c01.avi 2",
            "line 1: .*is numbered 2, which classInd.txt calls 'HandstandPushups'",
        ),
        ("Archery", "line 1: expected 'Class/v_Class_g01_c01.avi"),
    ],
)
def test_ucf101_bad_line(tmp_path, line, message):
    make_ucf(tmp_path, tmp_path)
    write(tmp_path / "trainlist02.txt", line + "\r\n")
    with pytest.raises(DataError, match=f"trainlist02.txt, {message}"):
        read_catalog(tmp_path)


def test_lists_beside_another_data_set_are_not_taken(tmp_path):
    make_ucf(tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist")
    touch(tmp_path / "own", "run/a.mp4", "walk/b.mp4")
    assert read_catalog(tmp_path / "own").kind == "folder"
    assert read_catalog(tmp_path / "UCF-101").kind == "ucf101"


def test_hmdb51_splits(tmp_path):
    root = touch(tmp_path / "hmdb", "climb/a_[x]&y!_0.avi", "climb/b.avi", "climb/c.avi", "wave/d.avi")
    lists = tmp_path / "testTrainMulti_7030_splits"
    write(lists / "climb_test_split1.txt", "a_[x]&y!_0.avi 1 \nb.avi 2 \nc.avi 0 \n")
    write(lists / "wave_test_split1.txt", "d.avi 1 \ngone.avi 2 \n")
    write(lists / "climb_test_split2.txt", "a_[x]&y!_0.avi 2 \nb.avi 0 \nc.avi 0 \n")
    catalog = read_catalog(root)
    assert catalog.kind == "hmdb51"
    assert catalog.splits == {
        "test1": ("climb/b.avi",),
        "test2": ("climb/a_[x]&y!_0.avi",),
        "train1": ("climb/a_[x]&y!_0.avi", "wave/d.avi"),
    }
    assert labels(catalog) == {
        **dict.fromkeys(("climb/a_[x]&y!_0.avi", "climb/b.avi", "climb/c.avi"), "climb"),
        "wave/d.avi": "wave",
    }
    assert catalog.missing == ("wave/gone.avi",)
    write(lists / "wave_test_split2.txt", "d.avi 1\n\nd.avi 3\n")
    with pytest.raises(
        DataError, match=r"wave_test_split2.txt, line 3: expected 'name.avi 0', 1 or 2; got 'd.avi 3'"
    ):
        read_catalog(root)


# --- Kinetics

K400 = "label,youtube_id,time_start,time_end,split,is_cc\n"
K600 = "label,youtube_id,time_start,time_end,split\n"
UNLABELLED = "youtube_id,time_start,time_end,split\n"


def test_kinetics_layouts_and_names(tmp_path):
    root = touch(
        tmp_path,
        "train/air drumming/-_a1B2c3D4e_000010_000020.mp4",
        "train/air drumming/AAAAAAAAAAA_5_15.mkv",
        "val/zumba/BBBBBBBBBBB.mp4",
        "test/bbbbbbbbbbb_000001_000011.mp4",
        "test/ggggggggggg_000007_000017.mp4",  # another id: they differ by case
        "train/unlisted/CCCCCCCCCCC_000010_000020.mp4",
    )
    write(
        root / "annotations/train.csv",
        K400 + '"air drumming",-_a1B2c3D4e,10,20,train,0\r\nair drumming,AAAAAAAAAAA,5,15,train,1\n'
        "zumba,GGGGGGGGGGG,7,17,train,0\n",
    )
    write(root / "annotations/validate.csv", K600 + "zumba,BBBBBBBBBBB,3,13,validate\n")
    write(root / "annotations/test.csv", UNLABELLED + "bbbbbbbbbbb,1,11,test\n")
    catalog = read_catalog(root)
    assert catalog.kind == "kinetics"
    assert catalog.splits == {
        "test": ("test/bbbbbbbbbbb_000001_000011.mp4",),
        "train": (
            "train/air drumming/-_a1B2c3D4e_000010_000020.mp4",
            "train/air drumming/AAAAAAAAAAA_5_15.mkv",
        ),
        "val": ("val/zumba/BBBBBBBBBBB.mp4",),
    }
    assert labels(catalog)["train/air drumming/AAAAAAAAAAA_5_15.mkv"] == "air drumming"
    assert labels(catalog)["test/bbbbbbbbbbb_000001_000011.mp4"] is None
    assert catalog.missing == ("GGGGGGGGGGG_000007_000017.mp4",)


def test_kinetics_whole_video_named_by_several_rows_gives_segments(tmp_path):
    touch(tmp_path, "AAAAAAAAAAA.mp4")
    listing = write(
        tmp_path / "x_train.csv",
        "label,youtube_id,time_start,time_end\nrun,AAAAAAAAAAA,5,15\nwalk,AAAAAAAAAAA,30,40\n",
    )
    assert labels(read_catalog(tmp_path, lists=listing)) == {
        "AAAAAAAAAAA.mp4#5-15": "run",
        "AAAAAAAAAAA.mp4#30-40": "walk",
    }


def test_kinetics_takes_the_copy_in_the_split_and_class(tmp_path):
    name = "AAAAAAAAAAA_000005_000015.mp4"
    touch(tmp_path, f"train/other/{name}", f"train/ice_skating/{name}", f"val/ice_skating/{name}")
    listing = write(tmp_path / "train.csv", K600 + "ice skating,AAAAAAAAAAA,5,15,train\n")
    assert ids(read_catalog(tmp_path, lists=listing)) == [f"train/ice_skating/{name}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id,time_start\n", "no column time_end; expected youtube_id, time_start, time_end"),
        (
            K600 + "run,AAAAAAAAAAA,5,15,train\nrun,AAAAAAAAAAA,x,15,train\n",
            "line 3: time_start and time_end must be",
        ),
        (K600 + "run,AAAAAAAAAAA\n", "line 2: split must be train, val or test"),
        (K600 + "run,,1,2,train\n", "line 2: no youtube_id"),
    ],
)
def test_kinetics_bad_list(tmp_path, text, message):
    touch(tmp_path, "AAAAAAAAAAA.mp4")
    with pytest.raises(DataError, match=message):
        read_catalog(tmp_path, lists=write(tmp_path / "k.csv", text))


def test_kinetics_lists_of_several_versions_need_a_choice(tmp_path):
    for version in (400, 600):
        touch(tmp_path / f"kinetics{version}", "AAAAAAAAAAA_000005_000015.mp4")
        write(
            tmp_path / f"annotations/kinetics-{version}_val.csv",
            K600 + f"run{version},AAAAAAAAAAA,5,15,val\n",
        )
    touch(tmp_path / "mine", "AAAAAAAAAAA_000005_000015.mp4")
    assert read_catalog(tmp_path / "kinetics600").labels == ("run600",)
    with pytest.raises(ConfigError, match=r"several data sets \(Kinetics 400, 600\); give one of the files"):
        read_catalog(tmp_path / "mine", "kinetics")


# --- mistakes


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        read_catalog(tmp_path / "gone")
    with pytest.raises(DataError, match="it holds no files"):
        read_catalog(tmp_path)
    touch(tmp_path, "a.txt", "b.txt", "c")
    with pytest.raises(DataError, match=r"2 \.txt, 1 without extension\); looked for .*\.mp4 "):
        read_catalog(tmp_path)
    touch(tmp_path, "x.mp4")
    with pytest.raises(DataError, match=r"expected a folder of videos .* found a video"):
        read_catalog(tmp_path / "x.mp4")
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        read_catalog(tmp_path, "foldr")
    with pytest.raises(ConfigError, match=r"kind hmdb51 needs its lists, brush_hair_test_split1\.txt"):
        read_catalog(tmp_path, "hmdb51")
    with pytest.raises(ConfigError, match="kind flat reads no lists"):
        read_catalog(tmp_path, "flat", tmp_path / "a.txt")
    with pytest.raises(ConfigError, match=r"no list in .*expected train.txt"):
        read_catalog(tmp_path, "list")
    with pytest.raises(DataError, match="no list file or folder of lists at"):
        read_catalog(tmp_path, lists=tmp_path / "nolist.txt")
    with pytest.raises(DataError, match="names no videos"):
        read_catalog(tmp_path, lists=write(tmp_path / "empty.txt", "# nothing\n"))


def test_list_that_names_nothing_that_exists(tmp_path):
    touch(tmp_path, "x.mp4")
    with pytest.raises(DataError, match=r"none of the 2 videos that the list .*expected 'a\.mp4' for one"):
        read_catalog(tmp_path, lists=write(tmp_path / "list.txt", "a.mp4\nb.mp4\n"))
    make_ucf(tmp_path / "made", tmp_path / "lists")
    with pytest.raises(
        DataError, match=r"none of the 4 videos .*expected 'Archery/.*found 1 others, 'x.mp4'"
    ):
        read_catalog(touch(tmp_path / "root", "x.mp4"), "ucf101", tmp_path / "lists")


def test_unreadable_lists(tmp_path):
    touch(tmp_path, "x.mp4")
    (tmp_path / "list.txt").write_bytes(b"a.mp4\n\xff\xfe\n")
    with pytest.raises(DataError, match=re.escape("list.txt is not UTF-8 text (byte 6)")):
        read_catalog(tmp_path, lists=tmp_path / "list.txt")


def test_only_broken_links(tmp_path):
    (tmp_path / "a.mp4").symlink_to("/nonexistent/a.mp4")
    with pytest.raises(DataError, match=r"all 1 of its links point to nothing.*mounted"):
        read_catalog(tmp_path)


# --- the official lists and a real data set in UCF101's form


@pytest.fixture
def extra_data() -> Path:
    folder = os.environ.get("SLICFAST_EXTRA_DATA")
    if not folder:
        pytest.skip("SLICFAST_EXTRA_DATA is not set")
    return Path(folder)


def test_official_ucf101_counts(tmp_path, extra_data):
    lists = extra_data / "splits/ucfTrainTestlist"
    names = {line.split()[0] for path in lists.glob("t*list0*.txt") for line in path.read_text().splitlines()}
    touch(tmp_path, *names)
    catalog = read_catalog(tmp_path, lists=lists)
    assert catalog.kind == "ucf101"
    assert counts(catalog) == dict(train1=9537, test1=3783, train2=9586, test2=3734, train3=9624, test3=3696)
    assert (len(catalog), len(catalog.labels), catalog.missing) == (13320, 101, ())


def test_official_hmdb51_counts(tmp_path, extra_data):
    lists = extra_data / "splits/testTrainMulti_7030_splits"
    for path in lists.glob("*_test_split1.txt"):
        folder = path.name.removesuffix("_test_split1.txt")
        touch(tmp_path, *(f"{folder}/{line.split()[0]}" for line in path.read_text().splitlines()))
    catalog = read_catalog(tmp_path, lists=lists)
    assert catalog.kind == "hmdb51"
    assert counts(catalog) == {
        f"{role}{n}": c for n in (1, 2, 3) for role, c in (("train", 3570), ("test", 1530))
    }
    assert (len(catalog), len(catalog.labels), catalog.missing) == (6766, 51, ())


@pytest.mark.parametrize(
    ("name", "num_rows", "num_labels"),
    [("kinetics-400_val", 19906, 1), ("kinetics-400_test", 38685, 0), ("kinetics-600_val", 30000, 1)],
)
def test_official_kinetics_lists(tmp_path, extra_data, name, num_rows, num_labels):
    listing = extra_data / f"splits/kinetics/{name}.csv"
    row = listing.read_text().splitlines()[1].split(",")
    youtube_id, start, end = row[-5:-2] if "400_val" in name else row[-4:-1]
    touch(tmp_path, f"{youtube_id}_{int(start):06d}_{int(end):06d}.mp4")
    catalog = read_catalog(tmp_path, lists=listing)
    assert catalog.kind == "kinetics"
    assert (len(catalog), len(catalog.labels)) == (1, num_labels)
    assert len(catalog.missing) == num_rows - 1
    assert list(catalog.splits) == [name.rpartition("_")[2]]


def test_a_kinetics_list_of_paths_and_labels_is_a_plain_list(tmp_path, extra_data):
    listing = extra_data / "splits/kinetics/paddle_train_small_videos.list"
    names = {line.split()[0] for line in listing.read_text().splitlines()}
    touch(tmp_path, "abseiling/_4YTwq0-73Y_000044_000054.mp4")
    catalog = read_catalog(tmp_path, lists=listing)
    assert catalog.kind == "list"
    assert labels(catalog) == {"abseiling/_4YTwq0-73Y_000044_000054.mp4": "0"}
    assert len(catalog.missing) == len(names) - 1


def test_a_data_set_in_ucf101_form(extra_data):
    root = extra_data / "ucf_style"
    catalog = read_catalog(root)
    assert (catalog.kind, counts(catalog)) == ("ucf101", {"test1": 50, "train1": 100})
    assert catalog.labels == ("Jump", "Run", "Sit", "Stand", "Turn", "Walk")
    folder = read_catalog(root, "folder")
    assert (len(folder), folder.labels, counts(folder)) == (150, catalog.labels, {"train": 150})
    assert labels(folder) == labels(catalog)


def test_every_odd_video_is_seen(extra_data):
    root = extra_data / "odd_videos"
    listed = {line.split("\t")[0] for line in (root / "LABELS.tsv").read_text().splitlines()[1:]}
    assert set(ids(read_catalog(root))) == listed
