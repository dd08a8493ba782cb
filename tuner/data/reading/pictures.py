"""Pictures of many files: decoded all at once, or one by one when a batch asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tuner.data.in_memory import Split, moments
from tuner.data.loader import batch_sizes
from tuner.data.reading.class_folders import ClassFolders
from tuner.data.reading.picture import BrokenPicture, decode
from tuner.errors import DataError

SAMPLE = 2000
"""How many training pictures tell mean and deviation when not all are held in memory."""


@dataclass(frozen=True)
class Asked:
    """How pictures are decoded and divided."""

    size: tuple[int, int]
    mode: str
    val_share: float
    test_share: float
    seed: int


def decode_all(listing: ClassFolders, indices: Iterable[int], asked: Asked) -> Tensor:
    """Decode pictures to float32 from 0 to 1, shape (N, C, H, W).

    Raises:
        DataError: some cannot be decoded; it names them all.
    """
    images, problems = [], []
    for index in indices:
        try:
            images.append(decode(listing.pictures[index].file.path, asked.size, asked.mode))
        except BrokenPicture as broken:
            problems.append(broken.problem)
    if problems:
        raise DataError(str(listing.root), problems)
    return torch.stack(images).float() / 255


class Pictures(Dataset[Split]):
    """Pictures that are decoded and standardised when they are asked for.

    Attributes:
        labels: the classes, shape (N,).
        parts: the indices of training, validation and test pictures.
        mean: of each channel, shape (C, 1, 1).
        deviation: of each channel, shape (C, 1, 1).
    """

    def __init__(self, listing: ClassFolders, asked: Asked) -> None:
        self.listing, self.asked = listing, asked
        self.labels, self.parts = listing.parts(asked.val_share, asked.test_share, asked.seed)
        train = self.parts[0]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(asked.seed))
        sample = train[order[:SAMPLE].sort().values]
        mean, deviation = moments(decode_all(listing, sample.tolist(), asked), over=(0, 2, 3))
        self.mean, self.deviation = mean[0], deviation[0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Split:
        image = decode_all(self.listing, [index], self.asked)[0]
        return (image - self.mean) / self.deviation, self.labels[index]


class IndexBatches:
    """Batches of the indices of a part, in the order and the sizes that `TensorLoader` would take.

    Args:
        part: indices, shape (N,).
        batch_size: indices a batch.
        shuffle: draw a new order at each pass, from torch's global generator.
    """

    def __init__(self, part: Tensor, batch_size: int, shuffle: bool) -> None:
        self.part, self.shuffle = part, shuffle
        full = [len(chunk) for chunk in part.split(batch_size)] if len(part) else []
        self.sizes = batch_sizes(len(part), batch_size) if shuffle else full

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.part[torch.randperm(len(self.part))] if self.shuffle else self.part
        yield from (chosen.tolist() for chosen in order.split(self.sizes))
