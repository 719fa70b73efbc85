"""What every sequence part is, and series as its layers take them: packed, or padded."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence


class SequencePart(nn.Module):
    """What every part is: made from (features, hidden_size), it reads series, and its `head` gives the logits.

    A part overrides `read`. Its answers for a series must not depend on what else is in the batch.

    Attributes:
        reads_logits: its input is the slice head's logits (S, 6) and not the embeddings.
        own_inputs: names of `INPUTS` that it reads as the last of its values, whatever is asked for beside them.
        drops: whether it takes a third argument, the dropout within it.
    """

    reads_logits = False
    own_inputs: tuple[str, ...] = ()
    drops = False
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
        return self.logits(self.read(embeddings, lengths.tolist(), positions_mm))

    def read(self, embeddings: Tensor, counts: list[int], positions_mm: Tensor | None) -> Tensor:
        """(S, W): what the head makes logits of."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """(S, 6) of what `read` gives."""
        return self.head(hidden)


def pack(embeddings: Tensor, counts: list[int]) -> tuple[PackedSequence | Tensor, list[int]]:
    """The series for a recurrent layer, and their order in there."""
    if not isinstance(counts[0], int):  # a graph is made, of one series of any length: nothing to pack
        return embeddings[None], [0]
    # Sorted here, on the CPU: packing would send the order to the GPU, and wait for it.
    order = sorted(range(len(counts)), key=lambda i: -counts[i])
    series = embeddings.split(counts)
    padded = pad_sequence([series[i] for i in order], batch_first=True)  # (P, longest, D)
    return pack_padded_sequence(padded, torch.tensor([counts[i] for i in order]), batch_first=True), order


def unpack(packed: PackedSequence | Tensor, counts: list[int], order: list[int]) -> Tensor:
    """(S, W): what a recurrent layer made of the series, stacked as they were."""
    if isinstance(packed, Tensor):
        return packed[0]
    padded, _ = pad_packed_sequence(packed, batch_first=True)
    place = {i: k for k, i in enumerate(order)}
    return torch.cat([padded[place[i], :count] for i, count in enumerate(counts)])


def pad(values: Tensor, counts: list[int], value: float = 0.0) -> Tensor:
    """(P, longest, W) of stacked series."""
    return pad_sequence(list(values.split(counts)), batch_first=True, padding_value=value)


def unpad(padded: Tensor, counts: list[int]) -> Tensor:
    """The reverse of `pad`."""
    return torch.cat([series[:count] for series, count in zip(padded, counts, strict=True)])
