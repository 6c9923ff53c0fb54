"""Catalogs of folders and plain lists, on empty placeholder files (no video is opened)."""

import os
import re

import pytest
from catalog_files import counts, ids, labels, make_ucf, touch, write

from slicfast.data.catalog import read_catalog
from slicfast.errors import ConfigError, DataError

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
