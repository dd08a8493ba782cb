"""What a batch of tuner's data costs beside a bare index into tensors, and beside torch's own DataLoader.

Digits in training batches of 64 against `x[idx], y[idx]` with indices that are there already, and against a DataLoader
over a TensorDataset; Text in training windows of 32 × 64 against a DataLoader over a dataset of such windows. All sides
take turns in one process, on one torch thread, each with a pass to warm up and a pass that counts; the figures are
medians over the rounds.

    python benchmarks/data.py            # 200 rounds
    python benchmarks/data.py --quick    # 20 rounds
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tuner.data import Digits, Text

SIZE, ROWS, STEPS = 64, 32, 64


def main() -> None:
    """Measure, print the table, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 rounds")
    rounds = 20 if parser.parse_args().quick else 200
    torch.set_num_threads(1)
    ms = measure(sides(), rounds)
    print(f"{'a batch of':<32} {'ms':>8}")
    for name, value in ms.items():
        print(f"{name:<32} {value:>8.4f}")
    figures = {
        "ratio": round(ms["digits"] / ms["digits, bare index"], 3),
        "dataloader_ratio": round(ms["digits, DataLoader"] / ms["digits"], 1),
        "text_dataloader_ratio": round(ms["text, DataLoader"] / ms["text"], 1),
        "rounds": rounds,
    }
    print(json.dumps(figures | {"ms": {name: round(value, 5) for name, value in ms.items()}}))


def sides() -> dict[str, Callable[[], Iterable[Any]]]:
    """What is measured: a function that gives one pass of batches, by name."""
    x, y = Digits().splits().train
    indices = torch.randperm(len(x)).split(SIZE)
    text = Text(batch_size=ROWS, steps=STEPS)
    return {
        "digits": Digits(batch_size=SIZE).train_dataloader,
        "digits, bare index": lambda: bare(x, y, indices),
        "digits, DataLoader": lambda: DataLoader(TensorDataset(x, y), batch_size=SIZE, shuffle=True),
        "text": text.train_dataloader,
        "text, DataLoader": lambda: DataLoader(Windows(text.corpus.train), batch_size=ROWS, shuffle=True),
    }


def bare(x: Tensor, y: Tensor, indices: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches by indices that cost nothing any more."""
    for idx in indices:
        yield x[idx], y[idx]


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """The windows of a text, each with the symbols that follow."""

    def __init__(self, symbols: Tensor) -> None:
        self.symbols = symbols

    def __len__(self) -> int:
        return (len(self.symbols) - 1) // STEPS

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        at = index * STEPS
        return self.symbols[at : at + STEPS], self.symbols[at + 1 : at + 1 + STEPS]


def measure(passes: dict[str, Callable[[], Iterable[Any]]], rounds: int) -> dict[str, float]:
    """Milliseconds a batch of each side, the median over rounds in which the sides take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, batches in passes.items():
            for _ in batches():
                pass
            began, count = time.perf_counter(), 0
            for _ in batches():
                count += 1
            seconds[name].append((time.perf_counter() - began) / count)
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()
