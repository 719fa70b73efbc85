"""The sequence part: what reads the embeddings of a series in order and gives its slices' logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from ichseq.labels import LABELS


class SkipLSTM(nn.Module):
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

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Logits (S, 6) of stacked embeddings (S, D); lengths (P,) on the CPU."""
        counts = lengths.tolist()
        # Sorted here, on the CPU: packing would send the order to the GPU, and wait for it.
        order = sorted(range(len(counts)), key=lambda i: -counts[i])
        series = embeddings.split(counts)
        padded = pad_sequence([series[i] for i in order], batch_first=True)  # (P, longest, D)
        packed = pack_padded_sequence(padded, torch.tensor([counts[i] for i in order]), batch_first=True)
        packed1, _ = self.lstm1(packed)
        packed2, _ = self.lstm2(packed1)
        h1, h2 = (_unpack(p, counts, order) for p in (packed1, packed2))  # (S, 2H)
        return self.head(h1 + h2 + F.relu(self.linear1(h1)) + F.relu(self.linear2(h2)))


def _unpack(packed: PackedSequence, counts: list[int], order: list[int]) -> Tensor:
    padded, _ = pad_packed_sequence(packed, batch_first=True)
    place = {i: k for k, i in enumerate(order)}
    return torch.cat([padded[place[i], :count] for i, count in enumerate(counts)])
