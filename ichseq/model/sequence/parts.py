"""The sequence part: what reads the embeddings of a series in order and gives its slices' logits.

`PARTS` holds the parts by their names in `model.sequence`. They read stacked slices (S, ...) and the number of slices
of each series. Orders and masks are made from those numbers on the CPU, so that nothing waits for the GPU.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from ichseq.errors import ConfigError
from ichseq.labels import LABELS
from ichseq.model.sequence.inputs import INPUTS, relative_mm, with_differences


class SequencePart(nn.Module):
    """What every part is: made from (features, hidden_size), it reads series, and its `head` gives the logits.

    A part overrides `read`. Its answers for a series must not depend on what else is in the batch.

    Attributes:
        reads_logits: its input is the slice head's logits (S, 6) and not the embeddings.
    """

    reads_logits = False
    head: nn.Linear

    def forward(self, embeddings: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> Tensor:
        """Logits (S, 6) of stacked embeddings (S, D).

        Args:
            embeddings: (S, D), slices of all series stacked in order.
            lengths: (P,) slices of each series, on the CPU.
            positions_mm: (S,) float, places of the slices along the scan's axis, beside the embeddings; None: unknown.

        Raises:
            ValueError: the part needs positions and gets None.
        """
        return self.head(self.read(embeddings, lengths.tolist(), positions_mm))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        """(S, W): what the head makes logits of."""
        raise NotImplementedError


class SkipLSTM(SequencePart):
    """Two stacked bidirectional LSTM layers; the head reads both and a non-linear view of each.

    h1 and h2 are the layers' outputs, r = relu(linear(h)) of each; logits = linear(h1 + h2 + r1 + r2). The sequence
    network of the competition's 2nd place ("2X LSTM").
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm1 = nn.LSTM(features, hidden_size, bidirectional=True, batch_first=True)
        self.lstm2 = nn.LSTM(2 * hidden_size, hidden_size, bidirectional=True, batch_first=True)
        self.linear1 = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.linear2 = nn.Linear(2 * hidden_size, 2 * hidden_size)
        self.head = nn.Linear(2 * hidden_size, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        packed, order = _pack(embeddings, counts)
        packed1, _ = self.lstm1(packed)
        packed2, _ = self.lstm2(packed1)
        h1, h2 = (_unpack(p, counts, order) for p in (packed1, packed2))  # (S, 2H)
        return h1 + h2 + F.relu(self.linear1(h1)) + F.relu(self.linear2(h2))


class DeltaSkipLSTM(SkipLSTM):
    """`SkipLSTM` on differences: the 2nd place's final version.

    The layers read the embedding, current minus previous and current minus next (zeros at the ends), 3D values. The
    embedding itself is added to the sum before the head, which has 2H values: repeated where D divides 2H (published:
    2048 values, twice, for 4096), else through a linear layer.
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__(3 * features, hidden_size)
        self.repeats, rest = divmod(2 * hidden_size, features)
        self.skip = nn.Linear(features, 2 * hidden_size) if rest else None

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        hidden = super().read(with_differences(embeddings, counts), counts, positions_mm)
        return hidden + (embeddings.repeat(1, self.repeats) if self.skip is None else self.skip(embeddings))


class OneLSTM(SequencePart):
    """One bidirectional LSTM layer and a linear head.

    The 2nd place's "LSTM 64", with hidden_size 64 and channel_dropout 0.3.
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden_size, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden_size, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        packed, order = _pack(embeddings, counts)
        return _unpack(self.lstm(packed)[0], counts, order)  # (S, 2H)


class LogitsLSTM(OneLSTM):
    """One bidirectional LSTM layer over the slice head's six logits of each slice: row 18 of the 2nd place's table.

    The frozen stage leaves the slice head as it is; the joint stage trains it through this part too.
    """

    reads_logits = True


class TwoGRU(SequencePart):
    """Two stacked bidirectional GRU layers and a linear head."""

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, hidden_size, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden_size, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        packed, order = _pack(embeddings, counts)
        return _unpack(self.gru(packed)[0], counts, order)  # (S, 2H)


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
        padding = _pad(torch.zeros_like(places, dtype=torch.bool), counts, True)  # (P, longest), true where none is
        return _unpad(self.encoder(_pad(slices, counts), src_key_padding_mask=padding), counts)


class Convolutions(SequencePart):
    """Three residual convolutions of kernel 3 along the series, with dilations 1, 2 and 4, and a linear head.

    A slice sees the seven slices before and after it. Beyond a series' ends are zeros, never a neighbour.
    """

    dilations = (1, 2, 4)

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, hidden_size)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in self.dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden_size, hidden_size, 3, padding=d, dilation=d) for d in self.dilations
        )
        self.head = nn.Linear(hidden_size, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        slices = _pad(self.enter(embeddings), counts)  # (P, longest, H)
        inside = _pad(torch.ones_like(embeddings[:, :1]), counts)  # (P, longest, 1)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            seen = (norm(slices) * inside).transpose(1, 2)  # the norm and the layer before leave no zeros in padding
            slices = slices + F.gelu(convolution(seen)).transpose(1, 2)
        return _unpad(slices, counts)


PARTS: dict[str, type[SequencePart]] = {
    "lstm2": SkipLSTM,
    "lstm1": OneLSTM,
    "lstm2_delta": DeltaSkipLSTM,
    "logits": LogitsLSTM,
    "gru": TwoGRU,
    "transformer": Transformer,
    "conv": Convolutions,
}


def make_sequence(name: str, features: int, hidden_size: int, inputs: Sequence[str] = ()) -> SequencePart | None:
    """The sequence part of that name, None for "none"; `inputs` are appended to the D features that it reads.

    Raises:
        ConfigError: an unknown name.
    """
    if name != "none" and name not in PARTS:
        raise ConfigError(f"model.sequence is {name!r}; choose one of {', '.join((*PARTS, 'none'))}")
    for one in inputs:
        if one not in INPUTS:
            raise ConfigError(f"model.sequence_inputs has {one!r}; choose from {', '.join(INPUTS)}")
    if len(set(inputs)) < len(inputs):
        raise ConfigError(f"model.sequence_inputs is {', '.join(inputs)}; name each once")
    if name == "none":
        return None
    part = PARTS[name]
    return part((len(LABELS) if part.reads_logits else features) + 2 * len(inputs), hidden_size)


def _place_code(places: Tensor, width: int) -> Tensor:
    """(S, width): sines and cosines of places in mm; wavelengths from two usual slices to several heads."""
    wavelengths = torch.logspace(1, 3, width // 2, device=places.device)
    angles = places[:, None] * (2 * math.pi / wavelengths)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _pack(embeddings: Tensor, counts: list[int]) -> tuple[PackedSequence | Tensor, list[int]]:
    """The series for a recurrent layer, and their order in there."""
    if not isinstance(counts[0], int):  # a graph is made, of one series of any length: nothing to pack
        return embeddings[None], [0]
    # Sorted here, on the CPU: packing would send the order to the GPU, and wait for it.
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    series = embeddings.split(counts)
    padded = pad_sequence([series[i] for i in order], batch_first=True)  # (P, longest, D)
    return pack_padded_sequence(padded, torch.tensor([counts[i] for i in order]), batch_first=True), order


def _unpack(packed: PackedSequence | Tensor, counts: list[int], order: list[int]) -> Tensor:
    if isinstance(packed, Tensor):
        return packed[0]
    padded, _ = pad_packed_sequence(packed, batch_first=True)
    place = {i: k for k, i in enumerate(order)}
    return torch.cat([padded[place[i], :count] for i, count in enumerate(counts)])


def _pad(values: Tensor, counts: list[int], value: float = 0.0) -> Tensor:
    return pad_sequence(list(values.split(counts)), batch_first=True, padding_value=value)


def _unpad(padded: Tensor, counts: list[int]) -> Tensor:
    return torch.cat([series[:count] for series, count in zip(padded, counts, strict=True)])
