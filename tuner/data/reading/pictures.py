"""Pictures of many files: decoded all at once, or one by one when a batch asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tuner.data.in_memory import Split
from tuner.data.loader import Order, batch_sizes
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


@dataclass(frozen=True)
class ChannelMoments:
    """Mean and deviation of each channel, of values from 0 to 1; a constant's deviation is infinite.

    Attributes:
        mean: float32 of shape (C, 1, 1).
        deviation: float32 of shape (C, 1, 1).
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, images: Iterable[Tensor]) -> ChannelMoments:
        """Those of images of bytes, each of shape (C, H, W): sums of whole numbers, so exact in any order."""
        counts: Tensor | int = 0  # of each byte in each channel, shape (C, 256)
        for image in images:
            counts = counts + torch.stack([channel.flatten().bincount(minlength=256) for channel in image])
        mean, deviation = [], []
        for channel in torch.as_tensor(counts).tolist():
            count, total, squares = (sum(n * value**power for value, n in enumerate(channel)) for power in (0, 1, 2))
            mean.append(total / (255 * count))
            deviation.append(math.sqrt(count * squares - total**2) / (255 * count) or math.inf)
        return cls(*(torch.tensor(values).reshape(-1, 1, 1) for values in (mean, deviation)))

    def standardise(self, images: Tensor) -> Tensor:
        """Bytes of shape (…, C, H, W) as float32 with mean 0 and deviation 1; constants become 0."""
        return images.float().div_(255).sub_(self.mean).div_(self.deviation)


def decode_all(listing: ClassFolders, indices: Iterable[int], asked: Asked) -> Iterator[Tensor]:
    """Decode pictures one after another, to bytes of shape (C, H, W).

    Raises:
        DataError: some cannot be decoded; it comes at the end and names them all.
    """
    problems = []
    for index in indices:
        try:
            yield decode(listing.pictures[index].file.path, asked.size, asked.mode)
        except BrokenPicture as broken:
            problems.append(broken.problem)
    if problems:
        raise DataError(str(listing.root), problems)


class Pictures(Dataset[Split]):
    """Pictures that are decoded and standardised when they are asked for.

    Attributes:
        labels: the classes, shape (N,).
        parts: the indices of training, validation and test pictures.
        moments: of the channels, told by a sample of the training pictures.
    """

    def __init__(self, listing: ClassFolders, asked: Asked) -> None:
        self.listing, self.asked = listing, asked
        self.labels, self.parts = listing.parts(asked.val_share, asked.test_share, asked.seed)
        train = self.parts[0]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(asked.seed))
        sample = train[order[:SAMPLE].sort().values]
        self.moments = ChannelMoments.of(decode_all(listing, sample.tolist(), asked))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Split:
        (image,) = decode_all(self.listing, [index], self.asked)
        return self.moments.standardise(image), self.labels[index]


class IndexBatches:
    """Batches of the indices of a part, in the order and the sizes that `TensorLoader` would take.

    Args:
        part: indices, shape (N,).
        batch_size: indices a batch.
        shuffle: draw a new order at each pass.
        order: from where, if not from torch's global generator.
    """

    def __init__(self, part: Tensor, batch_size: int, shuffle: bool, order: Order | None = None) -> None:
        self.part, self.shuffle, self.sampler = part, shuffle, order or Order()
        full = [len(chunk) for chunk in part.split(batch_size)] if len(part) else []
        self.sizes = batch_sizes(len(part), batch_size) if shuffle else full

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            order = self.part[torch.randperm(len(self.part), generator=self.sampler.generator())]
        else:
            order = self.part
        yield from (chosen.tolist() for chosen in order.split(self.sizes))
