"""The sequence part: what reads the embeddings of a series in order and gives its slices' logits.

`PARTS` holds the parts by their names in `model.sequence`. They read stacked slices (S, ...) and the number of slices
of each series. Orders and masks are made from those numbers on the CPU, so that nothing waits for the GPU.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichseq.errors import ConfigError
from ichseq.labels import LABELS
from ichseq.model.sequence.inputs import INPUTS, with_differences
from ichseq.model.sequence.part import SequencePart, pack, pad, unpack, unpad
from ichseq.model.sequence.transformers import PostNormTransformer, Transformer


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
        packed, order = pack(embeddings, counts)
        packed1, _ = self.lstm1(packed)
        packed2, _ = self.lstm2(packed1)
        h1, h2 = (unpack(p, counts, order) for p in (packed1, packed2))  # (S, 2H)
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
        packed, order = pack(embeddings, counts)
        return unpack(self.lstm(packed)[0], counts, order)  # (S, 2H)


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
        packed, order = pack(embeddings, counts)
        return unpack(self.gru(packed)[0], counts, order)  # (S, 2H)


class ProjectedGRU(SequencePart):
    """Two stacked bidirectional GRU layers on a view of the embedding, with the slice's place in the series beside it.

    The view is layer norm, linear to 2 hidden_size values, GELU, layer norm; the place is k / (n - 1). The sequence
    part of a published network (github.com/i-pan/ct-head-hemorrhage-detection).
    """

    own_inputs = ("position",)
    drops = True

    def __init__(self, features: int, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        width = 2 * hidden_size
        self.norm = nn.LayerNorm(features)
        self.enter = nn.Linear(features, width)
        self.enter_norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width + 1, hidden_size, 2, bidirectional=True, batch_first=True, dropout=dropout)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, len(LABELS))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        place = embeddings[:, -2:-1]  # the first of the two values of "position"
        seen = self.enter_norm(F.gelu(self.enter(self.norm(embeddings[:, :-2]))))
        packed, order = pack(torch.cat([seen, place], dim=1), counts)
        return unpack(self.gru(packed)[0], counts, order)  # (S, 2H)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(self.drop(hidden))


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
        slices = pad(self.enter(embeddings), counts)  # (P, longest, H)
        inside = pad(torch.ones_like(embeddings[:, :1]), counts)  # (P, longest, 1)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            seen = (norm(slices) * inside).transpose(1, 2)  # the norm and the layer before leave no zeros in padding
            slices = slices + F.gelu(convolution(seen)).transpose(1, 2)
        return unpad(slices, counts)


PARTS: dict[str, type[SequencePart]] = {
    "lstm2": SkipLSTM,
    "lstm1": OneLSTM,
    "lstm2_delta": DeltaSkipLSTM,
    "logits": LogitsLSTM,
    "gru": TwoGRU,
    "gru_projected": ProjectedGRU,
    "transformer": Transformer,
    "transformer_post": PostNormTransformer,
    "conv": Convolutions,
}


def make_sequence(
    name: str, features: int, hidden_size: int, inputs: Sequence[str] = (), dropout: float = 0.0
) -> SequencePart | None:
    """The sequence part of that name, None for "none"; `inputs` are appended to the D features that it reads.

    Raises:
        ConfigError: an unknown name, or a part that can't be made so.
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
    width = (len(LABELS) if part.reads_logits else features) + 2 * len(inputs)
    if part.drops:
        return part(width, hidden_size, dropout)
    if dropout:
        takers = " and ".join(one for one, kind in PARTS.items() if kind.drops)
        raise ConfigError(f"model.sequence_dropout is for {takers}; set it to 0 for {name}")
    return part(width, hidden_size)
