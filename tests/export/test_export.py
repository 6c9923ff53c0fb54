"""slicfast export: what is written computes the same, says what it is, and is not kept where it does not."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from small_data import smooth_video
from small_network import write_checkpoint

import slicfast
from slicfast.errors import ConfigError, DataError, MachineError, RunError
from slicfast.export import formats
from slicfast.export.export import export_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("export") / "network.pt")


def clips(*shape):
    return torch.randn(shape)


def test_safetensors_is_the_same_encoder_everywhere(checkpoint, tmp_path):
    path = tmp_path / "encoder.safetensors"
    report = export_model(checkpoint, "safetensors", path)
    assert report.features == "projection"
    assert report.max_error < 1e-6
    batch = clips(2, 3, 4, 24, 24)
    with torch.no_grad():
        assert torch.equal(slicfast.load_model(path)(batch), slicfast.load_model(checkpoint)(batch))
    video = smooth_video(np.random.default_rng(), 12, 40, 32)
    encoders = [slicfast.Encoder.from_checkpoint(each, device="cpu") for each in (path, checkpoint)]
    np.testing.assert_array_equal(*(encoder.embed([video]) for encoder in encoders))
    assert encoders[0].plan == encoders[1].plan
    assert encoders[0].fingerprint() == encoders[1].fingerprint()


def test_a_backbone_alone_has_pooled_features_and_says_that_it_has_no_others(checkpoint, tmp_path):
    path = tmp_path / "backbone.safetensors"
    export_model(checkpoint, "safetensors", path, "pooled")
    video = smooth_video(np.random.default_rng(), 12, 40, 32)
    whole, alone = (slicfast.Encoder.from_checkpoint(each, device="cpu") for each in (checkpoint, path))
    np.testing.assert_array_equal(alone.embed([video]), whole.embed([video]))
    assert alone.fingerprint("pooled") == whole.fingerprint("pooled")
    with pytest.raises(ConfigError, match="has no projection; use its pooled"):
        alone.embed([video], "projection")


def test_onnx_takes_any_batch_and_size_and_computes_the_same(checkpoint, tmp_path):
    features = "projection"  # with the backbone under it
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "encoder.onnx"
    report = export_model(checkpoint, "onnx", path, features)
    assert report.free_sizes
    session = onnxruntime.InferenceSession(str(path))
    network = formats.Chosen(slicfast.load_model(checkpoint), features)
    for shape in ((1, 3, 4, 24, 24), (5, 3, 16, 40, 64)):
        batch = clips(*shape)
        with torch.no_grad():
            wanted = network(batch).numpy()
        (found,) = session.run(["features"], {"clips": batch.numpy()})
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())
    note = session.get_modelmeta().custom_metadata_map
    assert (note["format"], note["features"], note["clip_length"]) == ("slicfast-encoder", features, "4")
    assert json.loads(note["mean"]) == [0.485, 0.456, 0.406]
    assert note["slicfast"] == slicfast.__version__


def test_torchscript_computes_the_same_and_holds_its_metadata(checkpoint, tmp_path):
    path = tmp_path / "encoder.ts"
    export_model(checkpoint, "torchscript", path)
    extra = {"slicfast.json": ""}
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        network = torch.jit.load(str(path), _extra_files=extra)
    batch = clips(3, 3, 8, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(network(batch), slicfast.load_model(checkpoint).forward_features(batch))
    assert json.loads(extra["slicfast.json"])["features"] == "pooled"


def test_what_computes_otherwise_is_not_kept(checkpoint, tmp_path, monkeypatch):
    def off(encoder, features, path, metadata):
        with torch.no_grad():
            encoder.backbone.conv1.weight[0] *= 1.01
        written(encoder, features, path, metadata)
        with torch.no_grad():
            encoder.backbone.conv1.weight[0] /= 1.01

    written = formats.write_safetensors
    monkeypatch.setattr(formats, "write_safetensors", off)
    with pytest.raises(RunError, match="differs from the original by"):
        export_model(checkpoint, "safetensors", tmp_path / "encoder.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="not an encoder that this slicfast exported"):
        slicfast.load_model(tmp_path / "foreign.safetensors")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        slicfast.load_model(tmp_path / "broken.safetensors")


def test_a_missing_onnx_library_is_named_with_the_line_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # what an import then finds: nothing
    with pytest.raises(MachineError, match=r"ONNX needs onnx; run pip install 'slicfast\[export\]'"):
        export_model("nowhere", "onnx", tmp_path / "x.onnx")
