"""Pictures of your own, one folder a class; in memory while they fit, else decoded batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tuner.data.choice import check_choice
from tuner.data.division import check_shares
from tuner.data.in_memory import Batch, InMemory, Split, Splits, hash_of, standardisation
from tuner.data.loader import evaluation_size
from tuner.data.reading.class_folders import ClassFolders, list_classes
from tuner.data.reading.files import find_folder
from tuner.data.reading.picture import CHANNELS
from tuner.data.reading.pictures import Asked, ChannelMoments, IndexBatches, Pictures, decode_all
from tuner.errors import TrialImpossible


class ImageFolder(InMemory):
    """Pictures as images of shape (B, C, H, W), every channel standardised with the training split's statistics.

    The folder holds one folder a class. Or it holds `train`, and perhaps `val` and `test`, which hold one folder a
    class each; what has no folder is drawn from `train`, by class. Those three may be called `training`; `valid`,
    `validation` or `dev`; `testing`; in any case. Links to folders are not followed. Pictures are turned as their
    camera says.

    They are held in memory, as float32, if that takes no more than `max_memory_gb` (while they are prepared, 1.3 times
    as much as measured, 1.5 times at most). Otherwise each batch is decoded when it is needed, in the same order; mean
    and deviation are then those of 2,000 training pictures drawn by the seed, and the fingerprint knows contents only
    through those and the files' sizes.

    Args:
        path: the folder. A relative path starts at the current folder; if there is none, a folder of that name that
            comes with tuner's examples is taken.
        image_size: height and width in pixels, as one number or as [height, width].
        mode: `RGB`, or `L` for grey.
        batch_size: samples a training batch, or `full` for batch gradient descent, which needs them held in memory.
        max_memory_gb: above it, pictures are decoded batch by batch; 0 always does so.
        workers: processes that decode batches; 0 decodes in the training process.
        val_share: share of the pictures used for validation, if it is drawn.
        test_share: share of the pictures kept for the test, which no trial sees, if it is drawn.
        seed: fixes the split. It is the same in every trial of a study.
        order_seed: fixes the order of the training batches, which is then the same in every trial; by default each
            trial's own seed does.

    Raises:
        DataError: there is no such folder; or, when the data are first used, everything that is wrong in it.
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        path: str,
        image_size: int | list[int] = 32,
        mode: str = "RGB",
        batch_size: int | str = 32,
        max_memory_gb: float = 4.0,
        workers: int = 0,
        val_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, order_seed)
        check_shares(val_share, test_share)
        check_choice("mode", mode, CHANNELS)
        sides = [image_size, image_size] if isinstance(image_size, int) else image_size
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"image_size must be one number or [height, width], from 1 on, but got {image_size}.")
        if max_memory_gb < 0 or workers < 0:
            raise ValueError(f"max_memory_gb and workers must be at least 0, but got {max_memory_gb=}, {workers=}.")
        self.root = find_folder(path)
        self.asked = Asked((sides[0], sides[1]), mode, val_share, test_share, seed)
        self.max_memory_gb, self.workers = max_memory_gb, workers
        self.input_shape = (CHANNELS[mode], sides[0], sides[1])

    @cached_property
    def listing(self) -> ClassFolders:
        """The picture files, as this data module sees them."""
        return list_classes(self.root)

    @cached_property
    def num_classes(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' folders, by alphabet."""
        return self.listing.class_names

    @property
    def gigabytes(self) -> float:
        """What all pictures take in memory."""
        return len(self.listing.pictures) * torch.Size(self.input_shape).numel() * 4 / 1e9

    @property
    def held(self) -> bool:
        """Whether the pictures are held in memory."""
        return self.gigabytes <= self.max_memory_gb

    def splits(self) -> Splits:
        """The three splits, prepared once in a process however many trials ask, until a file changes.

        Raises:
            ValueError: they do not fit into `max_memory_gb`.
        """
        if not self.held:
            raise ValueError(
                f"all pictures together must fit into max_memory_gb, but they take {self.gigabytes:.3g} of "
                f"{self.max_memory_gb:g}. Use the loaders, which decode batch by batch, or raise max_memory_gb."
            )
        return _held(self.listing, self.asked)

    def fingerprint(self) -> str:
        """A hash of the data as the trials see it; of pictures not in memory, of their files' names and sizes."""
        if self.held:
            return self.splits().fingerprint()
        pictures = self._pictures
        digest = hashlib.sha256(repr((self.asked, self.class_names)).encode())
        for picture in self.listing.pictures:
            name = picture.file.path.relative_to(self.root).as_posix()
            digest.update(repr((name, picture.file.size, picture.split)).encode())
        digest.update(hash_of((pictures.moments.mean, pictures.moments.deviation, *pictures.parts)).encode())
        return digest.hexdigest()

    def preparation(self) -> dict[str, Any]:
        """The size and the mode of the pictures, and what standardised their channels."""
        if self.held:
            taken_out = self.splits().moments
        else:
            moments = self._pictures.moments
            taken_out = moments.mean.unsqueeze(0), moments.deviation.unsqueeze(0)
        raw = f"pixels from 0 to 1 of pictures of {self.input_shape[1]} × {self.input_shape[2]}, mode {self.asked.mode}"
        return standardisation(raw, taken_out)

    def train_dataloader(self) -> Iterable[Batch]:
        """Training batches of shape (B, C, H, W), in a new order at each epoch.

        Raises:
            TrialImpossible: `batch_size` is `full`, and the pictures do not fit into `max_memory_gb`.
        """
        if self.held:
            return super().train_dataloader()
        if isinstance(self.batch_size, str):
            raise TrialImpossible(
                f"batch_size: full must have all pictures in memory, but they take {self.gigabytes:.3g} GB of "
                f"max_memory_gb={self.max_memory_gb:g}. Give a number, or raise max_memory_gb."
            )
        parts = self._pictures.parts
        return self._decoded(torch.cat(parts[:2]) if self.joined else parts[0], self.batch_size, shuffle=True)

    def val_dataloader(self) -> Iterable[Batch]:
        """The validation split, in a fixed order."""
        if self.held:
            return super().val_dataloader()
        return self._decoded(self._pictures.parts[1], evaluation_size(self.input_shape))

    def test_dataloader(self) -> Iterable[Batch]:
        """The test split, which no trial sees."""
        if self.held:
            return super().test_dataloader()
        return self._decoded(self._pictures.parts[2], evaluation_size(self.input_shape))

    @property
    def _pictures(self) -> Pictures:
        """The pictures that are not held in memory."""
        return _streamed(self.listing, self.asked)

    def _decoded(self, part: Tensor, size: int, shuffle: bool = False) -> DataLoader[Split]:
        self.check_alone()
        return DataLoader(
            self._pictures,
            batch_sampler=IndexBatches(part, size, shuffle, self.order),
            num_workers=self.workers,
            generator=torch.Generator(),  # so that the global one is drawn from as often as in memory
        )


@lru_cache(maxsize=2)
def _held(listing: ClassFolders, asked: Asked) -> Splits:
    labels, parts = listing.parts(asked.val_share, asked.test_share, asked.seed)
    images = torch.empty((len(labels), CHANNELS[asked.mode], *asked.size), dtype=torch.uint8)
    for decoded, place in zip(decode_all(listing, range(len(labels)), asked), images, strict=False):
        place.copy_(decoded)
    moments = ChannelMoments.of(images[index] for index in parts[0].tolist())
    train, val, test = ((moments.standardise(images[part]), labels[part]) for part in parts)
    return Splits(train, val, test, (moments.mean.unsqueeze(0), moments.deviation.unsqueeze(0)))


@lru_cache(maxsize=4)
def _streamed(listing: ClassFolders, asked: Asked) -> Pictures:
    return Pictures(listing, asked)
