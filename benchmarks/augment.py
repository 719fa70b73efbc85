"""Augmentation and windows: Hounsfield units to the network's input, against a chain of kornia on windowed channels."""

from functools import partial

import kornia.augmentation as K
import torch
from common import compare, parser, prepared, report
from torch import Tensor

from ichseq import Model
from ichseq.config import AugmentConfig
from ichseq.data.augment import Drawn, appearances, warps
from ichseq.data.batches import Item, read_batch
from ichseq.data.index import Index
from ichseq.model.stack import in_chunks
from ichseq.windows import CHANNEL_MEAN, CHANNEL_STD, DEFAULT_WINDOWS, WINDOWS

CHUNK = 32
TISSUE = {"tissue_shift": 6.0, "tissue_contrast": 0.15, "shading": 4.0}
KERNEL = {"blur": 1.0, "sharpen": 1.0}
NOISE = {"noise": 8.0, "correlated_noise": 6.0}


def main() -> None:
    options = parser(__doc__, patients=12)
    options.add_argument("--image-size", type=int, default=384, help="side of what the network sees")
    options.add_argument("--rounds", type=int, default=5)
    asked = options.parse_args()
    index = Index.load(prepared(asked.patients, asked.size))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Model("test_resnet", image_size=asked.image_size).to(device)  # for its view of a slice
    batches = [read_batch(index, [Item(i)]) for i in range(index.n_series)]
    series = [batch.hu.to(device) for batch in batches]

    def ours(config: AugmentConfig) -> None:
        for number, hu in enumerate(series):
            lengths = torch.tensor([len(hu)])
            drawn = [Drawn((number,), 0, len(hu), alone=False)]
            warp, look = warps(config, [one.key for one in drawn]).to(device), appearances(config, drawn)
            arranged = model.network_input.arrange(hu, lengths, None, None, warp, look)
            for spans in in_chunks(arranged.spans, CHUNK):
                model.network_input(hu, spans, *arranged[1:])
        _wait(device)

    chain = published_chain(asked.image_size).to(device)

    def kornias() -> None:
        for number, hu in enumerate(series):
            torch.manual_seed(number)  # one draw for the series, so that its slices move together
            state = torch.get_rng_state()
            for part in hu.split(CHUNK):
                torch.set_rng_state(state)
                chain(windowed(part))
        _wait(device)

    with torch.no_grad():
        seconds = compare(
            {
                "kornia, operation after operation": kornias,
                "ichseq, one warp": partial(ours, AugmentConfig()),
                "the same, tissue and shading": partial(ours, AugmentConfig(**TISSUE)),
                "the same, blur or sharpening": partial(ours, AugmentConfig(**KERNEL)),
                "the same, white and correlated noise": partial(ours, AugmentConfig(**NOISE)),
                "the same, all of them": partial(ours, AugmentConfig(**TISSUE, **KERNEL, **NOISE)),
            },
            asked.rounds,
        )
    reference = seconds["kornia, operation after operation"]
    rows = [["way", "ms a slice", "ratio"]]
    rows += [
        [name, f"{taken / index.n_slices * 1e3:.2f}", f"{reference / taken:.2f}"] for name, taken in seconds.items()
    ]
    report("augment", f"{asked.size} x {asked.size} HU to three channels of {asked.image_size}, augmented", rows, [
        f"Augmentation A at its probabilities, a draw a series, on {device} with {torch.get_num_threads()} threads; "
        f"chunks of {CHUNK} slices, {index.n_slices} slices, median of {asked.rounds} rounds in turns. ichseq's time "
        "holds finding the head and cropping to it; the chain's does not crop.",
    ])  # fmt: skip


def windowed(hu: Tensor) -> Tensor:
    channels = [(hu.float() - (WINDOWS[name][0] - WINDOWS[name][1] / 2)) / WINDOWS[name][1] for name in DEFAULT_WINDOWS]
    return torch.stack(channels, dim=1).clamp(0, 1)


def published_chain(size: int) -> torch.nn.Module:
    mean, std = ([table[name] for name in DEFAULT_WINDOWS] for table in (CHANNEL_MEAN, CHANNEL_STD))
    return torch.nn.Sequential(
        K.Resize((size, size)),
        K.RandomHorizontalFlip(p=0.5, same_on_batch=True),
        K.RandomAffine(
            degrees=20, translate=(0.05, 0.05), scale=(0.95, 1.05), padding_mode="border", p=0.3, same_on_batch=True
        ),
        Transpose(),
        K.Normalize(mean=torch.tensor(mean), std=torch.tensor(std)),
    )


class Transpose(torch.nn.Module):
    """Rows and columns exchanged, or not; kornia has none."""

    def forward(self, images: Tensor) -> Tensor:
        return images.transpose(2, 3).contiguous() if torch.rand(()) < 0.5 else images


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
