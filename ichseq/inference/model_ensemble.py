"""Several models that answer as one: the mean of their probabilities, over views of the slices too."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ichseq.config import embedding_settings
from ichseq.ct.series import Series
from ichseq.devices import choose_device
from ichseq.errors import ConfigError, RunError
from ichseq.exported.description import exported_file
from ichseq.exported.loaded import AnyModel, ExportedModel
from ichseq.geometry import VIEWS, check_views
from ichseq.model import Model
from ichseq.model.evidence import own_gradients

_PIECE = 64  # slices of a series that are read and embedded at a time


class Answers(NamedTuple):
    """Probabilities.

    Attributes:
        slices: (S, 6).
        exams: (series, 6), the mean of each model's exam head, or of the highest slice of a model without one; None:
            no model has one.
    """

    slices: np.ndarray
    exams: np.ndarray | None


class ModelEnsemble:
    """One model or several, with one answer.

    Models whose embeddings are the same, such as those of the epochs of a frozen stage, share a backbone: the first of
    them reads each slice for all.

    Attributes:
        models: in evaluation mode; exported ones among them.
        views: that are averaged with the slices as they are.
        warps: (1, 3, 3) of each view, None first, for the slices as they are.
        device: where the models are; all on one.
    """

    def __init__(self, models: AnyModel | Sequence[AnyModel], tta: Iterable[str] = ()) -> None:
        """Take the models.

        Args:
            models: on one device.
            tta: names of `ichseq.geometry.VIEWS` that are averaged with the slices as they are.

        Raises:
            ConfigError: an unknown view, or any of an exported model.
        """
        self.models = [models] if isinstance(models, AnyModel) else list(models)
        self.views = [tta] if isinstance(tta, str) else list(tta)
        check_views(self.views, "--tta")
        if self.views and any(isinstance(model, ExportedModel) for model in self.models):
            raise ConfigError("--tta: an exported network reads the slices as they are; leave it out, or name the run")
        self.device = self.models[0].device
        self.warps = [None, *(VIEWS[name][None] for name in self.views)]
        # Of each model, the number of the first one with the same embeddings; and these first ones, each once.
        self._embedder_of = [next(k for k, other in enumerate(self.models) if _same_embeddings(model, other))
                             for model in self.models]  # fmt: skip
        self._embedders = sorted(set(self._embedder_of))
        for model in self.models:
            if isinstance(model, Model):
                model.eval()

    @classmethod
    def load(cls, folders: Sequence[Path], tta: Iterable[str] = (), device: str = "auto") -> "ModelEnsemble":
        """The models of some folders, on a device (auto: a GPU if there is one); a shared backbone is there once.

        Where there is an .onnx file among them, all are on the CPU.

        Raises:
            ConfigError: an unknown view, no such device, or a GPU for an exported network.
            RunError: no model there, or a damaged one.
        """
        files = [exported_file(folder) for folder in folders]
        place = choose_device("cpu" if device == "auto" and any(files) else device)
        if any(files) and place.type != "cpu":
            raise ConfigError(f"device is {device!r}: an exported network is asked on the CPU; name the run instead")
        ensemble = cls([Model.load(folder, device="cpu") if file is None else ExportedModel.load(file)
                        for folder, file in zip(folders, files, strict=True)], tta)  # fmt: skip
        for model, embedder in zip(ensemble.models, ensemble._embedder_of, strict=True):
            shared = ensemble.models[embedder]
            if isinstance(model, Model) and isinstance(shared, Model):
                model.backbone = shared.backbone
                model.to(place)
        ensemble.device = ensemble.models[0].device
        return ensemble

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of each model's file of weights, each once; "unsaved" for one whose weights are in no file."""
        return list(dict.fromkeys(model.weights_sha256 or "unsaved" for model in self.models))

    @property
    def weights(self) -> str:
        """Which weights answer, for a cell of a table: the first 16 digits of the `hashes`."""
        return "+".join(one[:16] for one in self.hashes)

    @property
    def reach(self) -> int:
        """On how many slices to each side an embedding depends, at most."""
        return max(model.reach for model in self.models)

    @property
    def learned_mm(self) -> tuple[float, float] | None:
        """From which to which distance of slices some of the models have learned; None: not known of any."""
        known = [model.trained_on.get("slice_distance_mm") for model in self.models]
        ranges = [(float(of[0]), float(of[1])) for of in known if isinstance(of, list) and len(of) == 2]
        return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None

    def empty_bodies(self, shape: Sequence[int]) -> list[Tensor]:
        """Bool (rows, columns) for each backbone: where body was seen, which is nowhere yet; `add_body` marks it."""
        return [torch.zeros(tuple(shape), dtype=torch.bool) for _ in self._embedders]

    def add_body(self, bodies: list[Tensor], hu: np.ndarray) -> None:
        """Mark where a slice (rows, columns) has body."""
        for body, k in zip(bodies, self._embedders, strict=True):
            body |= self.models[k].network_input.body_of(torch.from_numpy(hu)[None])

    def crop_boxes(self, bodies: list[Tensor]) -> list[Tensor | None]:
        """Crop box (1, 4) of a series for each backbone; None where it crops each slice by itself."""
        inputs = [self.models[k].network_input for k in self._embedders]
        return [None if one.config.crop == "slice" else one.box_of(body)[None] for one, body in
                zip(inputs, bodies, strict=True)]  # fmt: skip

    @torch.inference_mode()
    def embed(self, hu: Tensor, lengths: Tensor, boxes: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """Embeddings of slices, (S, D) for each backbone and view.

        Args:
            hu: (S, rows, columns), the slices of all series stacked.
            lengths: (series,) slices of each.
            boxes: (series, 4) for each backbone, as `crop_boxes` gives them; None: found in `hu`.

        Returns:
            What `probabilities` takes; those of pieces of a series may be put together first.
        """
        found = []
        for place, k in enumerate(self._embedders):
            model = self.models[k]
            if isinstance(model, ExportedModel):
                found.append(model.embed(hu, lengths, boxes=None if boxes is None else boxes[place]))
                continue
            for warp in self.warps:
                box = None if boxes is None else boxes[place]
                turned = None if warp is None else warp.expand(len(lengths), 3, 3)
                with _autocast(model):
                    found.append(model.embed(hu.to(model.device), lengths, boxes=box, warp=turned))
        return found

    def embed_series(self, series: Series, boxes: Sequence[Tensor | None]) -> list[Tensor]:
        """`embed` for one series, read in pieces; of a long one no more is in memory than of a short one.

        Raises:
            SliceError: a slice can't be read.
        """
        pieces = []
        for start in range(0, len(series), _PIECE):
            first = max(0, start - self.reach)
            hu = torch.from_numpy(series.read(first, start + _PIECE + self.reach))
            embedded = self.embed(hu, torch.tensor([len(hu)]), boxes)
            pieces.append([of_one[start - first :][:_PIECE] for of_one in embedded])
        return [torch.cat(of_one) for of_one in zip(*pieces, strict=True)]

    @property
    def embedders(self) -> list[Model]:
        """The models whose backbones read the slices, in the order of what `embed` gives; no exported ones."""
        return [model for k in self._embedders if isinstance(model := self.models[k], Model)]

    def check_heatmaps(self) -> None:
        """See that every backbone can be looked into.

        Raises:
            ConfigError: there are exported networks among them.
        """
        if len(self.embedders) < len(self._embedders):
            raise ConfigError("an exported network has no heat maps; name the run that it was made of")

    def own_gradients(
        self, embeddings: Sequence[Tensor], positions_mm: Tensor | None, wanted: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """The gradient of the models' mean logit with respect to what `embed` gave, (K, D) for each backbone and view.

        Args:
            embeddings: of one series.
            positions_mm: (S,), for a sequence part that reads positions.
            wanted: K times slice and number of the label; see `ichseq.model.evidence.own_gradients`.
        """
        found: list[Tensor | None] = [None] * len(embeddings)
        for model, embedder in zip(self.models, self._embedder_of, strict=True):
            first = self._embedders.index(embedder) * len(self.warps)
            assert isinstance(model, Model)  # as `check_heatmaps` has seen
            for place in range(first, first + len(self.warps)):
                given = embeddings[place].clone()  # what inference mode made has no gradient
                own = own_gradients(model, given, positions_mm, wanted, in_order=_sequence_was_trained(model))
                before = found[place]
                found[place] = own if before is None else before + own
        return [one / (len(self.models) * len(self.warps)) for one in found if one is not None]

    @torch.inference_mode()
    def answers(
        self, embeddings: Sequence[Tensor], lengths: Tensor, positions_mm: Tensor | None, *, of: str = "a series"
    ) -> Answers:
        """The mean over models and views of the probabilities that follow from what `embed` gave.

        Args:
            embeddings: (S, D) for each backbone and view.
            lengths: (series,) slices of each.
            positions_mm: (S,), for a sequence part that reads positions.
            of: which series, for an error.

        Raises:
            RunError: an answer is no finite number.
        """
        every = list[tuple[Tensor, Tensor]]()
        for model, embedder in zip(self.models, self._embedder_of, strict=True):
            first = self._embedders.index(embedder) * len(self.warps)
            for one in embeddings[first : first + len(self.warps)]:
                every.append(_probabilities(model, one, lengths, positions_mm))
        slices, exams = (torch.stack(of_all).mean(0).cpu().numpy() for of_all in zip(*every, strict=True))
        if not (np.isfinite(slices).all() and np.isfinite(exams).all()):
            raise RunError(f"{of}: the network's answers are no finite numbers, so that there are none; its weights "
                           "are not sound: train it again, or name another")  # fmt: skip
        return Answers(slices, exams if any(_answers_exams(model) for model in self.models) else None)


def _probabilities(
    model: AnyModel, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(S, 6) and (series, 6); a model whose sequence part was not trained answers with its slice head."""
    with _autocast(model):
        if isinstance(model, ExportedModel) or _sequence_was_trained(model):
            output = model.answer(embeddings, lengths, positions_mm)
            logits, of_exams = output.logits, output.exam_logits
        else:
            logits, of_exams = model.slice_logits(embeddings), None
    slices = torch.sigmoid(logits.float())
    if of_exams is not None:
        return slices, torch.sigmoid(of_exams.float())
    return slices, torch.stack([series.amax(0) for series in slices.split(lengths.tolist())])


def _sequence_was_trained(model: Model) -> bool:
    return model.trained_on.get("answers_with") != "slice_head"


def _answers_exams(model: AnyModel) -> bool:
    """Whether a model says more of an exam than the highest of its slices."""
    if isinstance(model, ExportedModel):
        return model.answers_exams
    return model.exam is not None and _sequence_was_trained(model)


def _autocast(model: AnyModel) -> AbstractContextManager[object]:
    """On a GPU, the precision in which the model was trained; on a CPU the full one."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(model.trained_on.get("precision")))
    if model.device.type != "cuda" or kind is None:
        return nullcontext()
    return torch.autocast("cuda", dtype=kind)


def _same_embeddings(one: AnyModel, other: AnyModel) -> bool:
    """Whether two models see a slice alike and have the same backbone, weights and all."""
    if one is other:
        return True
    if not (isinstance(one, Model) and isinstance(other, Model)):
        return False
    views = [
        (embedding_settings(model.config), model.config.channels_last, model.trained_on.get("precision"))
        for model in (one, other)
    ]
    if views[0] != views[1]:
        return False
    weights = (one.backbone.state_dict(), other.backbone.state_dict())
    return all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
