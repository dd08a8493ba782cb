"""A text of your own, or Python's own manual, as characters for a language model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.data.division import check_shares
from tuner.data.in_memory import Batch, InMemory, Splits
from tuner.data.reading.files import Version, find, read_text
from tuner.data.reading.vocabulary import Vocabulary
from tuner.data.streams import Streams
from tuner.errors import DataError, Problem, TrialImpossible

STREAMS = 32
"""Streams in which validation and test are read, whatever the batch size, so that all trials are judged alike."""


@dataclass(frozen=True)
class Corpus:
    """A text as numbers, in three contiguous parts of shape (N,) each."""

    vocabulary: Vocabulary
    train: Tensor
    val: Tensor
    test: Tensor


class Text(InMemory):
    """A text by characters, split in its order: training, validation, test.

    Batches are (x, y), int64 of shape (B, T): characters, and those that follow them. They carry on: the part is laid
    out as B parallel streams, and each row of a batch continues that row of the batch before. Training starts each
    epoch at a random offset, so that windows differ. Validation and test are the same at each pass and for every
    `batch_size` and `steps`: 32 streams, in which every character but the part's first is predicted once; the last
    window may be shorter.

    The vocabulary is that of the training part. Its number 0 stands for characters that training has not seen.

    Args:
        path: a UTF-8 file, or a folder, whose files are joined in order of their paths. A relative path starts at the
            current folder; if there is none, what comes with tuner's examples is taken. None is Python's own manual
            (`pydoc_data.topics`), nearly half a million characters, which differ between versions of Python.
        batch_size: B, the number of streams that training reads in parallel.
        steps: T, the length of a window, through which gradients flow.
        val_share: share of the characters used for validation.
        test_share: share of the characters kept for the test, which no trial sees.
        pattern: which files of a folder to read, at any depth.
        order_seed: fixes at which offset each epoch starts, which is then the same in every trial; by default each
            trial's own seed does.

    Attributes:
        input_shape: (T,).

    Raises:
        DataError: there is no such file, or no file matches; or, when the data are first used, the text is not UTF-8
            or too short.
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        path: str | None = None,
        batch_size: int | str = 32,
        steps: int = 64,
        val_share: float = 0.1,
        test_share: float = 0.1,
        pattern: str = "*.txt",
        order_seed: int | None = None,
    ) -> None:
        if isinstance(batch_size, str):
            raise ValueError(
                f"batch_size must be a whole number for Text, but got {batch_size!r}: it is the number of streams that "
                "are read in parallel, and has no full size. Give a number."
            )
        super().__init__(batch_size, order_seed)
        check_shares(val_share, test_share)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, but got {steps}.")
        self.files = () if path is None else _files(path, pattern)
        self.rows, self.steps = batch_size, steps
        self.val_share, self.test_share = val_share, test_share
        self.input_shape = (steps,)

    @cached_property
    def corpus(self) -> Corpus:
        """The text, as this data module sees it; prepared once in a process, until a file changes."""
        return _corpus(tuple(map(Version.of, self.files)), self.val_share, self.test_share)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The characters by number; number 0 stands for all that training has not seen."""
        return self.corpus.vocabulary.characters

    @property
    def vocab_size(self) -> int:
        """V, the size of the vocabulary."""
        return len(self.vocabulary)

    def encode(self, text: str) -> Tensor:
        """The numbers of a text's characters, int64 of shape (N,)."""
        return self.corpus.vocabulary.encode(text)

    def decode(self, symbols: Tensor) -> str:
        """The text of some numbers, of any shape."""
        return self.corpus.vocabulary.decode(symbols)

    def splits(self) -> Splits:
        """Each part as all its characters but the last, and those that follow them, shape (N,)."""
        corpus = self.corpus
        train, val, test = ((part[:-1], part[1:]) for part in (corpus.train, corpus.val, corpus.test))
        return Splits(train, val, test)

    def fingerprint(self) -> str:
        """A hash of the text as the trials see it, and of its vocabulary."""
        return hashlib.sha256((super().fingerprint() + "".join(self.vocabulary)).encode()).hexdigest()

    def preparation(self) -> dict[str, Any]:
        """The vocabulary: a character's number is its place there, and 0 is any other's."""
        return {"inputs": "characters by their number in the vocabulary", "vocabulary": list(self.vocabulary)}

    def train_dataloader(self) -> Iterable[Batch]:
        """Training batches of shape (B, T), which start at a new offset in each epoch.

        Raises:
            TrialImpossible: the training part is too short for one such batch at every offset.
        """
        self.check_alone()
        corpus = self.corpus
        part = torch.cat([corpus.train, corpus.val]) if self.joined else corpus.train  # which follow each other
        loader = Streams(part, self.rows, self.steps, shift=True, order=self.order)
        if len(loader) == 0:
            needed = (self.rows + 1) * self.steps
            raise TrialImpossible(
                f"{_source(self.files)}: the training part must have (batch_size + 1) × steps = {needed} characters at "
                f"least, but has {len(part)}. Give more text, or set a smaller batch_size or steps."
            )
        return loader

    def val_dataloader(self) -> Iterable[Batch]:
        """The validation part, the same at each pass."""
        self.check_alone()
        return Streams(self.corpus.val, STREAMS, self.steps)

    def test_dataloader(self) -> Iterable[Batch]:
        """The test part, which no trial sees."""
        self.check_alone()
        return Streams(self.corpus.test, STREAMS, self.steps)


def _files(path: str, pattern: str) -> tuple[Path, ...]:
    found = find(path)
    files = (found,) if found.is_file() else tuple(sorted(p for p in found.rglob(pattern) if p.is_file()))
    if not files:
        rule = f"must match a file of the folder, but {pattern!r} matches none. Name another pattern."
        raise DataError(path, [Problem("pattern", rule)])
    return files


def _source(files: tuple[Path, ...]) -> str:
    return ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "") or "the text"


@lru_cache(maxsize=4)
def _corpus(versions: tuple[Version, ...], val_share: float, test_share: float) -> Corpus:
    text = "\n".join(read_text(version.path) for version in versions) if versions else _manual()
    text = text.replace("\r\n", "\n")
    val, test = (_trimmed(round(share * len(text))) for share in (val_share, test_share))
    train = len(text) - val - test
    short = [name for name, size, share in (("val", val, val_share), ("test", test, test_share)) if share and not size]
    if short or train < 2:
        rule = (
            f"must leave {STREAMS + 1} characters or more for validation and for the test, and 2 for training, but "
            f"{len(text)} characters are too few for {val_share=}, {test_share=}. Give more text."
        )
        raise DataError(_source(tuple(version.path for version in versions)), [Problem("(the text)", rule)])
    vocabulary = Vocabulary.of(text[:train])
    train_part, val_part, test_part = vocabulary.encode(text).split([train, val, test])
    return Corpus(vocabulary, train_part, val_part, test_part)


def _trimmed(count: int) -> int:
    """The largest part of so many characters whose streams have equal length, or 0."""
    return 1 + (count - 1) // STREAMS * STREAMS if count > STREAMS else 0


def _manual() -> str:
    """Python's own manual, as `help()` knows it."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))
