"""A trained network as graphs for other runtimes: written, and asked through onnxruntime."""
