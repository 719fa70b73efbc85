"""Models that answer together: the mean of their probabilities, over views of the slices too."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ichseq.config import embedding_settings
from ichseq.geometry import VIEWS, check_views
from ichseq.model import Model


class Panel:
    """One model or several, asked as one.

    Models with the same backbone, such as those of the epochs of a frozen stage, have it read each slice once.

    Attributes:
        models: in evaluation mode.
        device: where they are; all on one.
    """

    def __init__(self, models: Model | Sequence[Model], tta: Iterable[str] = ()) -> None:
        """Take the models.

        Args:
            models: on one device.
            tta: names of `ichseq.geometry.VIEWS` that are asked beside the slices as they are.

        Raises:
            ConfigError: an unknown view.
        """
        self.models = [models] if isinstance(models, Model) else list(models)
        self.views = list(tta)
        check_views(self.views, "--tta")
        self.device = self.models[0].device
        self._warps = [None, *(VIEWS[name][None] for name in self.views)]
        self._reader_of = [next(k for k, other in enumerate(self.models) if _same_view(model, other)) for model in
                           self.models]  # fmt: skip
        self._readers = sorted(set(self._reader_of))
        for model in self.models:
            model.eval()

    @classmethod
    def load(cls, folders: Sequence[Path], tta: Iterable[str] = (), device: str | None = None) -> "Panel":
        """The models of some folders, on a device (None: a GPU if there is one); a shared backbone is there once."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        panel = cls([Model.load(folder, device="cpu") for folder in folders], tta)
        for model, reader in zip(panel.models, panel._reader_of, strict=True):
            model.backbone = panel.models[reader].backbone
            model.to(device)
        panel.device = panel.models[0].device
        return panel

    @property
    def reach(self) -> int:
        """On how many slices to each side an embedding depends, at most."""
        return max(model.reach for model in self.models)

    def bodies(self, shape: Sequence[int]) -> list[Tensor]:
        """Where each reader has seen body: nowhere yet; `look` fills it in, `boxes` makes crop boxes of it."""
        return [torch.zeros(tuple(shape), dtype=torch.bool) for _ in self._readers]

    def look(self, bodies: list[Tensor], hu: np.ndarray) -> None:
        """Note where a slice (rows, columns) has body."""
        for body, k in zip(bodies, self._readers, strict=True):
            body |= self.models[k].network_input.body_of(torch.from_numpy(hu)[None])

    def boxes(self, bodies: list[Tensor]) -> list[Tensor | None]:
        """Crop box (1, 4) of a series for each reader; None where it crops each slice by itself."""
        inputs = [self.models[k].network_input for k in self._readers]
        return [None if one.config.crop == "slice" else one.box_of(body)[None] for one, body in
                zip(inputs, bodies, strict=True)]  # fmt: skip

    @torch.inference_mode()
    def embed(self, hu: Tensor, lengths: Tensor, boxes: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """Embeddings (S, D) of slices, by reader and view; `answer` takes these, or those of pieces put together."""
        found = []
        for place, k in enumerate(self._readers):
            model = self.models[k]
            for warp in self._warps:
                box = None if boxes is None else boxes[place]
                turned = None if warp is None else warp.expand(len(lengths), 3, 3)
                with _autocast(model):
                    found.append(model.embed(hu.to(model.device), lengths, boxes=box, warp=turned))
        return found

    @torch.inference_mode()
    def answer(self, embeddings: Sequence[Tensor], lengths: Tensor, positions_mm: Tensor | None) -> np.ndarray:
        """(S, 6) probabilities, the mean over models and views."""
        answers = []
        for model, reader in zip(self.models, self._reader_of, strict=True):
            first = self._readers.index(reader) * len(self._warps)
            for one in embeddings[first : first + len(self._warps)]:
                answers.append(_probabilities(model, one, lengths, positions_mm))
        return torch.stack(answers).mean(0).cpu().numpy()


def _probabilities(model: Model, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None) -> Tensor:
    """(S, 6); a model of the slice stage answers with its slice head."""
    with _autocast(model):
        if model.trained_on.get("stage") == "slice":
            logits = model.slice_logits(embeddings)
        else:
            logits = model.sequence_logits(embeddings, lengths, positions_mm)
    return torch.sigmoid(logits.float())


def _autocast(model: Model) -> AbstractContextManager[object]:
    """On a GPU, the precision in which the model was trained; on a CPU the full one."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(model.trained_on.get("precision")))
    if model.device.type != "cuda" or kind is None:
        return nullcontext()
    return torch.autocast("cuda", dtype=kind)


def _same_view(one: Model, other: Model) -> bool:
    """Whether two models see a slice alike and have the same backbone, weights and all."""
    if one is other:
        return True
    views = [
        (embedding_settings(model.config), model.config.channels_last, model.trained_on.get("precision"))
        for model in (one, other)
    ]
    if views[0] != views[1]:
        return False
    weights = (one.backbone.state_dict(), other.backbone.state_dict())
    return all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
