"""The doctor's trials of decoders: a film of each codec, what is said where an engine or a build is wrong."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch

from slicfast import doctor_decoders
from slicfast.doctor_decoders import (
    ENCODERS,
    GLIDE,
    MAX_ERROR,
    ON_CPU,
    check_conflicts,
    check_nvdec,
    check_optical_flow,
    conflicts,
    drawn_film,
    encoded_film,
    film_error,
)

pytest.importorskip("nvidia.dali")


@pytest.mark.parametrize("codec", ENCODERS)
def test_the_film_of_a_codec_is_of_that_codec_and_shows_what_was_drawn(codec: str) -> None:
    film = encoded_film(codec)
    if film is None:
        pytest.skip("no encoder here")
    with av.open(io.BytesIO(film)) as container:
        assert container.streams.video[0].codec.canonical_name == codec
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert shown.shape == drawn_film().shape
    assert np.abs(shown.astype(float) - drawn_film()).mean() < 12
    drawn = drawn_film()
    np.testing.assert_array_equal(drawn[1:, :, GLIDE:], drawn[:-1, :, :-GLIDE])


@pytest.mark.parametrize("codec", ON_CPU)
def test_dali_decodes_what_it_can_without_a_gpu(codec: str) -> None:
    error = film_error(codec, "cpu")
    assert error is not None and error < MAX_ERROR


def test_without_a_gpu_it_says_what_is_used_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor_decoders, "ON_CPU", ("mjpeg",))
    check = check_nvdec()
    assert (check.status, check.found) == ("ok", "no GPU; DALI on the processor: mjpeg decoded rightly")
    assert check_optical_flow().found == "no GPU: flow is computed by OpenCV when videos are prepared"


def test_what_a_decoder_cannot_do_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor_decoders, "ON_CPU", ("h264", "mjpeg"))  # DALI has no h264 there
    check = check_nvdec()
    assert check.status == "fail" and check.advice.startswith("pip install nvidia-dali-")
    assert check.found.startswith("no GPU; DALI on the processor: mjpeg decoded rightly; not h264: ")
    monkeypatch.setattr(doctor_decoders, "MAX_ERROR", -1.0)
    assert "mjpeg: 0." in check_nvdec().found and "of 255 off on average" in check_nvdec().found


def test_a_driver_without_its_video_libraries_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        doctor_decoders, "VIDEO_LIBRARIES", {"NVDEC": "libnone.so.1", "optical flow": "libnone.so.2"}
    )
    for check, name in ((check_nvdec(), "libnone.so.1"), (check_optical_flow(), "libnone.so.2")):
        assert check.status == "warn" and name in check.found
        assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in check.advice


@pytest.mark.parametrize(
    ("installed", "cuda", "expected"),
    [
        ({"nvidia-dali-cuda120"}, "", []),
        ({"nvidia-dali-cuda130", "cupy-cuda13x", "cuml-cu13"}, "13", []),
        ({"nvidia-dali-cuda120", "nvidia-dali-cuda130"}, "", ["nvidia-dali-cuda120", "nvidia-dali-cuda130"]),
        ({"nvidia-dali-cuda130", "cupy-cuda12x"}, "13", ["cupy-cuda12x"]),
        ({"cupy", "cupy-cuda13x"}, "13", ["cupy", "cupy-cuda13x"]),
        ({"cupy"}, "12", []),
        ({"nvidia-dali-cuda120", "cuml-cu12", "cuml-cu13"}, "12", ["cuml-cu12", "cuml-cu13"]),
    ],
)
def test_builds_that_do_not_fit_each_other_are_found(installed: set, cuda: str, expected: list) -> None:
    assert conflicts(installed, cuda) == expected


def test_the_line_that_mends_a_conflict_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_conflicts().status == "ok"
    there = {"nvidia-dali-cuda120": "2.4.0", "cupy-cuda12x": "14.2.0", "cuml-cu13": "26.10.0"}
    monkeypatch.setattr(doctor_decoders, "version_of", there.get)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    check = check_conflicts()
    assert check.status == "warn" and "torch is built for CUDA 13" in check.found
    assert check.advice == (
        "pip uninstall -y nvidia-dali-cuda120 cupy-cuda12x && pip install nvidia-dali-cuda130==2.4.0"
        " && pip install 'cupy-cuda13x==14.2.0'"
    )


@pytest.mark.needs_cuda
def test_the_engines_of_this_gpu_work() -> None:
    check = check_nvdec()
    assert check.status == "ok" and "h264" in check.found, check
    assert check_optical_flow().status == "ok", check_optical_flow()
    assert check_conflicts().status == "ok", check_conflicts()
