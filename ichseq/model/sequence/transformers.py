"""Sequence parts of attention between the slices of a series."""

import math

import torch
from torch import Tensor, nn

from ichseq.labels import LABELS
from ichseq.model.sequence.inputs import relative_mm
from ichseq.model.sequence.part import SequencePart, pad, unpad


class Transformer(SequencePart):
    """A transformer encoder of two pre-norm layers with four heads, without dropout of its own, and a linear head.

    Its width is hidden_size, rounded up to a multiple of four. Each slice carries a sinusoidal code of its position in
    mm from the series' first slice, so that thin and thick slices differ; it needs positions. A series sees
    neither padding nor other series.
    """

    heads = 4

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        width = -(-hidden_size // self.heads) * self.heads
        self.enter = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(
            width, self.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        for parameter in self.encoder.parameters():  # torch copies one layer: both would start the same
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.head = nn.Linear(width, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        places = relative_mm(positions_mm, counts, "model.sequence transformer")
        slices = self.enter(embeddings) + _place_code(places, self.head.in_features)
        padding = pad(torch.zeros_like(places, dtype=torch.bool), counts, True)  # (P, longest), true where none is
        return unpad(self.encoder(pad(slices, counts), src_key_padding_mask=padding), counts)


class PostNormTransformer(SequencePart):
    """A transformer encoder of two post-norm layers with two heads, as wide as the embedding, and a linear head.

    Each slice carries a sinusoidal code of its number in the series; hidden_size is the width of the layer between the
    attentions. The sequence part of "An effective transformer-based solution for RSNA intracranial hemorrhage
    detection" (arXiv 2205.07556).
    """

    drops = True

    def __init__(self, features: int, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(features, 2, hidden_size, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():  # torch copies one layer: both would start the same
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.head = nn.Linear(features, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        numbers = torch.cat([torch.arange(n, device=embeddings.device) for n in counts])
        slices = self.drop(embeddings + _number_code(numbers, embeddings.shape[1]))
        padding = pad(torch.zeros_like(numbers, dtype=torch.bool), counts, True)
        return unpad(self.encoder(pad(slices, counts), src_key_padding_mask=padding), counts)


def _place_code(places: Tensor, width: int) -> Tensor:
    """(S, width): sines and cosines of places in mm; wavelengths from two usual slices to several heads."""
    wavelengths = torch.logspace(1, 3, width // 2, device=places.device)
    angles = places[:, None] * (2 * math.pi / wavelengths)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _number_code(numbers: Tensor, width: int) -> Tensor:
    """(S, width): sines and cosines of slice numbers, in turn; wavelengths from 2 pi to 10,000 times that.

    Source: Vaswani et al., "Attention is all you need" (2017).
    """
    rates = torch.exp(torch.arange(0, width, 2, device=numbers.device) * (-math.log(10_000) / width))
    angles = numbers[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]
