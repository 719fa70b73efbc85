"""An exported network that is asked through onnxruntime, on the CPU."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ichseq.config import ModelConfig
from ichseq.errors import ConfigError, RunError
from ichseq.exported.description import About, files_of, read_exported
from ichseq.geometry import NO_SLICE_HU, rows_around
from ichseq.model import Model
from ichseq.model.chunks import DEFAULT_CHUNK
from ichseq.model.input import NetworkInput
from ichseq.model.output import Output
from ichseq.model.stack import Span, in_chunks


class ExportedModel:
    """What `ichseq.Model` is for those who ask it, with both graphs instead of the weights.

    Attributes:
        config: as the model's that was exported.
        trained_on: the same.
        weights_sha256: the same.
        network_input: finds the crop boxes; the rest of it is in the graph.
        answers_exams: whether the network says more of an exam than the highest of its slices.
        device: the CPU.
    """

    device = torch.device("cpu")

    def __init__(self, about: About, slices: Any, series: Any) -> None:
        """Take what the graphs are described as, and both as sessions of onnxruntime."""
        self.config = ModelConfig(**about.model.config)
        self.trained_on = about.model.trained_on
        self.weights_sha256 = about.model.weights or None
        self.network_input = NetworkInput(self.config)
        self.answers_exams = about.answers_exams
        self.digests = about.digests
        self._slices, self._series = slices, series

    @classmethod
    def load(cls, path: Path) -> Self:
        """The network of an .onnx file that `ichseq export` has written.

        Raises:
            ConfigError: onnxruntime is not there.
            RunError: no network there, a damaged one, or one of a newer version.
        """
        about, *graphs = read_exported(path)
        if importlib.util.find_spec("onnxruntime") is None:
            raise ConfigError("an exported network wants the package onnxruntime: pip install 'ichseq[onnx]'")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        sessions = []
        wanted = [{"hu", "boxes"}, {"embeddings", "positions_mm"}]
        for file, graph, names in zip(files_of(path), graphs, wanted, strict=False):
            try:  # from memory, so that it is what was compared, and no other file is read
                session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # types of its own
                raise RunError(f"{file}: onnxruntime does not take it ({type(error).__name__}); update onnxruntime, or "
                               "export it again") from None  # fmt: skip
            if {one.name for one in session.get_inputs()} != names:
                raise RunError(f"{file}: does not read {' and '.join(sorted(names))}; export it again")
            sessions.append(session)
        return cls(about, *sessions)

    @property
    def reach(self) -> int:
        """On how many slices to each side an embedding depends."""
        return self.config.neighbours

    def embed(self, hu: Tensor, lengths: Tensor, *, boxes: Tensor | None = None) -> Tensor:
        """Embeddings (S, D); arguments as of `Model.embed`, hu as int16."""
        spans, boxes, *_ = self.network_input.arrange(hu, lengths, None, boxes, None, None)
        parts = []
        for chunk in in_chunks(spans, max(1, DEFAULT_CHUNK // (1 + 2 * self.reach))):
            numbers = [span.number for span in chunk for _ in range(span.slices)]
            given = {"hu": self._seen(hu, chunk).to(torch.int16).numpy(), "boxes": boxes[numbers].numpy()}
            parts.append(torch.from_numpy(self._slices.run(["embeddings"], given)[0]))
        return torch.cat(parts)

    def _seen(self, hu: Tensor, chunk: Sequence[Span]) -> Tensor:
        """The slices of a chunk, each between its neighbours if the network reads these."""
        if hu.ndim == 4 or not self.reach:
            return hu[chunk[0].first : chunk[-1].stop]
        found = [rows_around(span.first, span.stop, *span.series, self.reach) for span in chunk]
        rows, there = (torch.cat(parts) for parts in zip(*found, strict=True))
        return hu[rows].masked_fill_(~there[:, :, None, None], NO_SLICE_HU)

    def answer(self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> Output:
        """Logits of the slices and of the series; arguments as of `Model.answer`."""
        places = torch.full((len(embeddings),), torch.nan) if positions_mm is None else positions_mm
        counts = lengths.tolist()
        found = [
            self._series.run(None, {"embeddings": one.numpy(), "positions_mm": of_one.float().numpy()})
            for one, of_one in zip(embeddings.split(counts), places.split(counts), strict=True)
        ]
        logits = torch.cat([torch.from_numpy(one[0]) for one in found])
        exams = torch.stack([torch.from_numpy(one[1]) for one in found]) if self.answers_exams else None
        return Output(logits, logits, exams)


AnyModel = Model | ExportedModel
