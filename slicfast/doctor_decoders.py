"""The doctor's trials of a GPU's own engines, NVDEC and optical flow, and of builds that do not fit together.

Each codec has a small film, drawn and encoded here, that DALI decodes and that is compared with FFmpeg's
decoding of the same bytes. Without a GPU the same trial runs on what DALI decodes on the processor.
"""

from __future__ import annotations

import importlib
import io
import os
from typing import Any

import numpy as np

from slicfast.checks import Check, first_line, version_of
from slicfast.data.decoding.jpeg import build_pipeline, outputs
from slicfast.data.decoding.vp9 import decoded_cut, feed_cuts
from slicfast.data.glide import GLIDE, HEIGHT, WIDTH, drawn_film
from slicfast.data.pipelines import flow_engine
from slicfast.data.pipelines.flow_engine import CAPABILITIES, glides_rightly, loads, measured_glide
from slicfast.data.stores.parts import Cut
from slicfast.device import dali_install_line, rapids_install_line, require_dali

# Codec -> encoders of FFmpeg that write it, and their options.
ENCODERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "h264": (("libx264",), {}),
    "hevc": (("libx265",), {"x265-params": "log-level=none"}),
    "vp8": (("libvpx",), {"deadline": "realtime"}),
    "vp9": (("libvpx-vp9",), {"deadline": "realtime"}),
    "av1": (("libaom-av1", "libsvtav1"), {}),
    "mpeg4": (("mpeg4",), {}),
    "mjpeg": (("mjpeg",), {}),
}
ON_CPU = ("vp8", "vp9", "mjpeg")  # that DALI decodes without a GPU
MAX_ERROR = 4.0  # levels of 255 on average: how chroma is enlarged differs
VIDEO_LIBRARIES = {"NVDEC": "libnvcuvid.so.1", "optical flow": flow_engine.LIBRARY}


def encoded_film(codec: str) -> bytes | None:
    """The drawn film as Matroska; None where this FFmpeg has no encoder of the codec."""
    import av

    os.environ.setdefault("SVT_LOG", "1")  # an encoder that writes to the terminal by itself
    encoders, options = ENCODERS[codec]
    encoder = next((name for name in encoders if name in av.codecs_available), None)
    if encoder is None:
        return None
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream: Any = container.add_stream(encoder, rate=25, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 2_000_000
        for picture in drawn_film():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


def film_error(codec: str, device: str) -> float | None:
    """Mean difference in levels of luma between DALI's and FFmpeg's pictures; None where none can be made.

    Args:
        device: "cpu" or "cuda".

    Raises what the decoder does.
    """
    import av
    import torch

    film = encoded_film(codec)
    if film is None:
        return None
    luma = np.array([0.299, 0.587, 0.114])
    with av.open(io.BytesIO(film), "r") as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    where = torch.device(device)
    fn: Any = importlib.import_module("nvidia.dali.fn")
    pipe = build_pipeline(lambda: decoded_cut(fn, where), where, 1, 1)
    feed_cuts(pipe, [Cut(np.frombuffer(film, dtype=np.uint8), np.arange(len(shown), dtype=np.int32))])
    pipe.schedule_run()
    (output,) = outputs(pipe)
    decoded = torch.from_dlpack(output.as_tensor())[0].cpu().numpy()
    return float(np.abs(decoded @ luma - shown @ luma).mean())


def check_nvdec() -> Check:
    """Every codec on the GPU's decoder; without one, those that DALI decodes on the processor."""
    import torch

    require_dali()
    on_gpu = torch.cuda.is_available()
    if on_gpu and (missing := _missing_library("NVDEC")):
        return Check(
            "NVDEC", "warn", f"the driver's {missing} does not load: no film is decoded here", CAPABILITIES
        )
    device = "cuda" if on_gpu else "cpu"
    right, wrong = tried_codecs(device)
    found = f"{', '.join(right) or 'nothing'} decoded rightly"
    if not on_gpu:
        found = f"no GPU; DALI on the processor: {found}"
    if not wrong:
        return Check("NVDEC", "ok", found)
    faults = "; ".join(f"{codec}: {fault}" for codec, fault in wrong.items())
    if on_gpu and right:  # every GPU lacks some codec
        advice = "prepare videos of the other codecs, and take data.source=store or resident"
        return Check("NVDEC", "ok" if "h264" in right else "warn", f"{found}; not {faults}", advice)
    return Check("NVDEC", "fail", f"{found}; not {faults}", dali_install_line())


def tried_codecs(device: str) -> tuple[list[str], dict[str, str]]:
    """The codecs whose film comes out as FFmpeg shows it, and what went wrong with the others."""
    right: list[str] = []
    wrong: dict[str, str] = {}
    for codec in ENCODERS if device != "cpu" else ON_CPU:
        try:
            error = film_error(codec, device)
        except Exception as failure:  # whatever a decoder throws is what there is to be said
            wrong[codec] = first_line(failure)
            continue
        if error is None:
            wrong[codec] = "not tried, as no encoder is here"
        elif error > MAX_ERROR:
            wrong[codec] = f"{error:.1f} of 255 off on average"
        else:
            right.append(codec)
    return right, wrong


def check_optical_flow() -> Check:
    """The optical-flow engine on pictures that glide by a known distance."""
    import torch

    name = "optical flow"
    if not torch.cuda.is_available():
        return Check(name, "ok", "no GPU: flow is computed by OpenCV when videos are prepared")
    if missing := _missing_library(name):
        return Check(name, "warn", f"the driver's {missing} does not load", CAPABILITIES)
    require_dali()
    try:
        across, down = measured_glide(torch.device("cuda", 0))
    except Exception as failure:  # as above
        return Check(
            name, "warn", f"the engine fails: {first_line(failure)}", "prepare --flow computes it by OpenCV"
        )
    found = f"pictures that glide by {GLIDE}, 0 pixels are found to glide by {across:.2f}, {down:.2f}"
    if glides_rightly(across, down):
        return Check(name, "ok", found)
    return Check(name, "warn", found, "prepare --flow computes it by OpenCV")


def check_conflicts() -> Check:
    """Builds for different CUDA versions, or two of one library, beside each other."""
    import torch

    major = (torch.version.cuda or "").partition(".")[0]
    installed = {package: version_of(package) for package in KNOWN_BUILDS}
    there = {package: version for package, version in installed.items() if version}
    wrong = conflicts(set(there), major)
    found = ", ".join(f"{package} {version}" for package, version in there.items()) or "none installed"
    if not wrong:
        return Check("GPU packages", "ok", found)
    lines = [f"pip uninstall -y {' '.join(wrong)}"]
    if any(package.startswith("nvidia-dali") for package in wrong):
        lines.append(dali_install_line())
    if major:
        lines += [rapids_install_line(kind) for kind in ("cupy", "cuml") if any(kind in p for p in wrong)]
    against = f"torch is built for CUDA {major}" if major else "torch is built without CUDA"
    return Check("GPU packages", "warn", f"{found}; {against}", " && ".join(lines))


KNOWN_BUILDS = {  # package -> (library, CUDA version that it is built for; "": any)
    "nvidia-dali-cuda120": ("dali", "12"),
    "nvidia-dali-cuda130": ("dali", "13"),
    "cupy-cuda12x": ("cupy", "12"),
    "cupy-cuda13x": ("cupy", "13"),
    "cupy": ("cupy", ""),
    "cuml-cu12": ("cuml", "12"),
    "cuml-cu13": ("cuml", "13"),
}


def conflicts(installed: set[str], cuda_major: str) -> list[str]:
    """The packages to uninstall: all builds of a library where two are there or one is for another CUDA.

    Args:
        cuda_major: of torch, such as "13"; "": without CUDA, where DALI's builds serve alike.
    """
    wrong: list[str] = []
    for library in ("dali", "cupy", "cuml"):
        builds = sorted(package for package in installed if KNOWN_BUILDS[package][0] == library)
        foreign = [p for p in builds if cuda_major and KNOWN_BUILDS[p][1] not in ("", cuda_major)]
        if len(builds) > 1 or foreign:
            wrong += builds
    return wrong


def _missing_library(engine: str) -> str:
    """The name of the driver's library where it does not load, else nothing."""
    return "" if loads(VIDEO_LIBRARIES[engine]) else VIDEO_LIBRARIES[engine]
