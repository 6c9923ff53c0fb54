"""A trained network for other programs: safetensors, ONNX, TorchScript (floor 4)."""
