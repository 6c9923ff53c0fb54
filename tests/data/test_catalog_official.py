"""Catalogs by official lists: UCF101, HMDB51, Kinetics, on look-alikes and on the real ones."""

import pytest
from catalog_files import counts, ids, labels, make_ucf, touch, write

from slicfast.data.catalog import read_catalog
from slicfast.errors import ConfigError, DataError

# --- UCF101 and HMDB51


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


# --- the official lists and a real data set in UCF101's form


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
