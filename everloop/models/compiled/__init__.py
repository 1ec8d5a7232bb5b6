"""A model as ONNX beside its pickle: converted when it is packaged, used only where it was verified to answer alike."""
