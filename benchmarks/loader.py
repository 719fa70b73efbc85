"""The loader: slices a second handed to the model's device, against one of the published kind on the same cores."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from common import compare, parser, phantoms, prepared, report
from published import Slices, convert
from torch.utils.data import DataLoader

from ichseq import Model
from ichseq.config import AugmentConfig
from ichseq.data.augment import warps
from ichseq.data.batches import Allocate, Item, SliceBatch, read_batch
from ichseq.data.feed import feed
from ichseq.data.index import Index
from ichseq.data.plan import plan_epoch
from ichseq.model.stack import in_chunks, series_spans

THREADS = 2


def main() -> None:
    options = parser(__doc__, patients=60)
    options.add_argument("--image-size", type=int, default=384, help="side of what the network sees")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    index = Index.load(prepared(asked.patients, asked.size))
    files = sorted((phantoms(asked.patients, asked.size) / "stage_2_train").iterdir())
    model = Model("test_resnet", image_size=asked.image_size)  # for its view of a slice; the backbone is not run
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        jpegs = [Path(folder) / f"{file.stem}.jpg" for file in files]
        for file, jpeg in zip(files, jpegs, strict=True):
            convert(file, jpeg)
        loader = DataLoader(Slices(jpegs, asked.image_size), batch_size=32, num_workers=THREADS)
        seconds = compare(
            {
                "published: JPEG, crop, augment, normalise; 2 processes": lambda: run(x.to(device) for x in loader),
                "ichseq: decoded and stacked; 2 threads": lambda: run(batches(index, device)),
                "ichseq: the same, with warp and windows": lambda: run(seen(model, index, device)),
            },
            asked.rounds,
        )
    reference = next(iter(seconds.values()))
    rows = [["way", "slices/s", "ratio"]]
    rows += [[name, f"{index.n_slices / taken:.0f}", f"{reference / taken:.1f}"] for name, taken in seconds.items()]
    report("loader", f"Reading {index.n_slices} slices of {asked.size} x {asked.size} for a network of "
           f"{asked.image_size}", rows, [
        f"Onto {device}. Batches of 4 series in ichseq, of 32 slices in the reference; median of {asked.rounds} rounds "
        "in turns, starting the reference's worker processes included, once a round. Warp and windows are the "
        "network's own first layers: on a GPU they cost the CPU nothing; here they run on these cores.",
    ])  # fmt: skip


def run(items: Iterator[object]) -> None:
    for _ in items:
        pass


def batches(index: Index, device: torch.device) -> Iterator[SliceBatch]:
    config = AugmentConfig()

    def read(items: list[Item], allocate: Allocate) -> SliceBatch:
        return read_batch(index, items, allocate)

    plan = plan_epoch(index, index.training_series(0), batch=4, accumulate=1, processes=1, key=(0, 0))
    plan += plan_epoch(index, index.validation_series(0), batch=4, accumulate=1, processes=1, key=(0, 0))
    tasks = [step[0][0] for step in plan]
    for batch in feed(tasks, read, threads=THREADS, device=device):
        warps(config, [(0, item[0]) for item in batch.items])
        yield batch


def seen(model: Model, index: Index, device: torch.device) -> Iterator[torch.Tensor]:
    config = AugmentConfig()
    for batch in batches(index, device):
        boxes = model.crop_boxes(batch.hu, batch.lengths)
        warp = warps(config, [(0, item[0]) for item in batch.items]).to(device)
        for spans in in_chunks(series_spans(batch.hu, batch.lengths, None), model.chunk_size):
            yield model.network_input(batch.hu, spans, boxes, warp)


if __name__ == "__main__":
    main()
