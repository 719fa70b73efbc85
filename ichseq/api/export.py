"""export: a trained network as graphs for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ichseq.errors import RunError

if TYPE_CHECKING:
    from ichseq.model import Model


def export(run: Model | str | Path, out: str | Path = "model.onnx") -> Path:
    """Write a trained network as two graphs, slices to embeddings and the embeddings of a series to logits.

    Both take any number of slices, and the first one images of any size. docs/reference.md says what they read and
    give.

    Args:
        run: a leaf, a run with one, an experiment's result with one model, the name of a network that ships, or an
            `ichseq.Model`, which is in evaluation mode after.
        out: model.onnx for onnxruntime and others, which `predict` takes too (extra `onnx`); or model.pt2 for
            torch.export. model.series.onnx and model.onnx.json are written beside it.

    Returns:
        The description: settings, labels, windows, what the network was trained on, hashes.

    Raises:
        ConfigError: another suffix, a package that is not there, or something in the network that can't be exported.
        RunError: no such run, one with several models, or files that can't be written.

    Example:
        >>> import ichseq
        >>> ichseq.export("runs/first", "exported/model.onnx").name
        'model.onnx.json'
        >>> table = ichseq.predict("exported/model.onnx", "scans/stage_2_test")
    """
    from copy import deepcopy

    from ichseq.exported.description import exported_file
    from ichseq.exported.write import check_out, write_exported
    from ichseq.model import Model
    from ichseq.runs.folders import models_of

    check_out(Path(out))
    if isinstance(run, Model):
        on_cpu = run if run.device.type == "cpu" else deepcopy(run).cpu()
        return write_exported(on_cpu, Path(out))
    folders = models_of(Path(run))
    if len(folders) > 1:
        raise RunError(f"{run}: has {len(folders)} models, and one is exported; name one: {folders[0]}, ...")
    if exported_file(folders[0]) is not None:
        raise RunError(f"{run}: is exported already; name the run that it was made of")
    return write_exported(Model.load(folders[0], device="cpu"), Path(out))
