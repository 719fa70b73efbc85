"""A network as graphs, for ONNX runtimes or for torch.export, by the suffix of the file's name."""

import dataclasses
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from ichseq.errors import ConfigError, RunError
from ichseq.exported.description import ONNX, TORCH, About, digest_of, files_of
from ichseq.exported.graphs import SeriesGraph, SlicesGraph, answers_exams
from ichseq.exported.recurrent import as_loops, with_onnx_layers
from ichseq.files import flush, replacing
from ichseq.model import Model
from ichseq.model.saved import Description

_EXAMPLE = 3  # slices that the graphs are traced with; they hold for any number


def check_out(out: Path) -> None:
    """See that a network can be exported to a file of that name, before the work.

    Raises:
        ConfigError: another suffix, or a package is not there.
        RunError: the folder can't be written to.
    """
    if out.suffix not in (ONNX, TORCH):
        raise ConfigError(f"-o {out}: a network is exported to {ONNX} (for onnxruntime and others) or {TORCH} "
                          "(torch.export); choose a name that ends so")  # fmt: skip
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if out.suffix == ONNX and missing:
        raise ConfigError(f"exporting to {ONNX} wants the package {missing[0]}: pip install 'ichseq[onnx]'")
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent):
            pass


def write_exported(model: Model, out: Path) -> Path:
    """Write both graphs of a network and their description, each beside and then renamed into place, that one last.

    Args:
        model: on the CPU; in evaluation mode after.
        out: the first graph, .onnx or .pt2; its folder is made.

    Returns:
        The description.

    Raises:
        ConfigError: a name that `check_out` refuses, or something in the network can't be exported.
        RunError: the files can't be written.
    """
    check_out(out)
    model.eval()
    slices, series = slices_graph(model, out.suffix), series_graph(model, out.suffix)
    now = Description(dataclasses.asdict(model.config), model.trained_on, None, None, model.weights_sha256 or "")
    about = About(now, model.features, answers_exams(model), (digest_of(slices), digest_of(series)))
    contents = (slices, series, about.text().encode())
    with _writing(out), ExitStack() as stack:
        for file, content in reversed(list(zip(files_of(out), contents, strict=True))):
            beside = stack.enter_context(replacing(file))
            beside.write_bytes(content)
            flush(beside)  # so that no disk is found to be full once the first of them is in place
    return files_of(out)[-1]


def slices_graph(model: Model, suffix: str) -> bytes:
    """The file of `SlicesGraph`.

    Raises:
        ConfigError: it can't be exported.
    """
    graph = SlicesGraph(model).eval()
    seen, side, count = 1 + 2 * model.config.neighbours, model.config.image_size, Dim("slices")
    shape = (_EXAMPLE, side, side) if seen == 1 else (_EXAMPLE, seen, side, side)
    with _explained(f"model.backbone {model.config.backbone}"):
        return _BY_SUFFIX[suffix](
            graph,
            {"hu": torch.zeros(shape, dtype=torch.int16), "boxes": torch.full((_EXAMPLE, 4), side / 2)},
            {"hu": {0: count, len(shape) - 2: Dim("rows"), len(shape) - 1: Dim("columns")}, "boxes": {0: count}},
            ["embeddings"],
        )


def series_graph(model: Model, suffix: str) -> bytes:
    """The file of `SeriesGraph`; raises as `slices_graph`."""
    count = {0: Dim("slices")}
    with _explained(f"model.sequence {model.config.sequence} with model.exam {model.config.exam} as {suffix}"):
        return _BY_SUFFIX[suffix](
            SeriesGraph(model),
            {"embeddings": torch.zeros(_EXAMPLE, model.features), "positions_mm": 5 * torch.arange(float(_EXAMPLE))},
            {"embeddings": count, "positions_mm": count},
            ["logits", "exam_logits"][: 1 + answers_exams(model)],
        )


def _onnx(graph: nn.Module, example: dict[str, Tensor], shapes: dict[str, Any], outputs: Sequence[str]) -> bytes:
    """The bytes of an ONNX file."""
    made = torch.onnx.export(
        with_onnx_layers(graph),
        tuple(example.values()),
        dynamo=True,
        dynamic_shapes=tuple(shapes.values()),
        input_names=list(example),
        output_names=list(outputs),
        verbose=False,
    )
    assert made is not None
    made.model.metadata_props.clear()
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # where in which file of this machine each of them comes from
    return bytes(made.model_proto.SerializeToString())


def _torch(graph: nn.Module, example: dict[str, Tensor], shapes: dict[str, Any], outputs: Sequence[str]) -> bytes:
    """The bytes of a torch.export archive."""
    given: dict[str, Any] = {"args": tuple(example.values()), "dynamic_shapes": tuple(shapes.values())}
    with as_loops():
        try:  # as if no number of slices were special; without that a graph may hold from two or three slices on
            with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
                made = torch.export.export(graph, **given)
        except torch._dynamo.exc.UserError:  # what some layers do not take
            made = torch.export.export(graph, **given)
    made.module()(*(value[:1] for value in example.values()))  # one slice alone, which it may refuse
    for module in made.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # as above
    buffer = io.BytesIO()
    torch.export.save(made, buffer)
    return buffer.getvalue()


_Export = Callable[[nn.Module, dict[str, Tensor], dict[str, Any], Sequence[str]], bytes]
_BY_SUFFIX: Final[dict[str, _Export]] = {ONNX: _onnx, TORCH: _torch}


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{out}: can't be written ({error.strerror}); make room, or choose another -o") from None


@contextmanager
def _explained(part: str) -> Iterator[None]:
    """Within it, nothing is printed, and what fails is a ConfigError that says so."""
    log = logging.getLogger("torch")
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # torch raises its own types by version, and any that a backbone raises
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigError(f"{part} can't be exported ({type(error).__name__}: {reason}); choose another") from None
    finally:
        log.setLevel(level)
