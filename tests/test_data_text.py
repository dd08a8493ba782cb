"""Text: streams that continue from batch to batch, every character judged once, and a vocabulary of training alone."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from tuner.data import Streams, Text
from tuner.data.text import STREAMS
from tuner.errors import DataError, StudyStopped, TrialFailed, TrialImpossible

LETTERS = "abcdefgh \n"


def letters(count: int, seed: int = 0, of: str = LETTERS) -> str:
    return "".join(random.Random(seed).choices(of, k=count))  # noqa: S311


def file(folder: Path, text: str, name: str = "a.txt") -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def told(path: str | None, **arguments: float) -> str:
    with pytest.raises(DataError) as caught:
        Text(path, **arguments).train_dataloader()  # type: ignore[arg-type]
    return str(caught.value)


# ---- streams -------------------------------------------------------------------------------------------------------


def test_streams_by_hand() -> None:
    # 13 symbols are 12 predictions: two streams of six, in windows of four and two
    batches = [(x.tolist(), y.tolist()) for x, y in Streams(torch.arange(13), rows=2, steps=4)]
    assert batches == [
        ([[0, 1, 2, 3], [6, 7, 8, 9]], [[1, 2, 3, 4], [7, 8, 9, 10]]),
        ([[4, 5], [10, 11]], [[5, 6], [11, 12]]),
    ]


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("steps", [1, 3, 10, 50])
@pytest.mark.parametrize("length", [1, 2, 9, 30])
def test_a_fixed_pass_predicts_every_symbol_once_and_continues(rows: int, steps: int, length: int) -> None:
    symbols = torch.arange(rows * length + 1)
    loader = Streams(symbols, rows, steps)
    batches = list(loader)
    assert len(loader) == len(batches)
    assert sorted(torch.cat([y.flatten() for _, y in batches]).tolist()) == list(range(1, rows * length + 1))
    assert continues(batches)
    assert all(x.shape == y.shape == (rows, steps) for x, y in batches[:-1])
    again = list(loader)
    assert all(
        torch.equal(a, b) for one, other in zip(batches, again, strict=True) for a, b in zip(one, other, strict=True)
    )


def continues(batches: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether each target is its input one further on, and each row goes on where it ended; symbols are 0, 1, …."""
    shifted = all(torch.equal(y, x + 1) for x, y in batches)
    onward = all(torch.equal(x[:, 0], y[:, -1]) for (_, y), (x, _) in pairwise(batches))
    within = all(torch.equal(x[:, 1:], y[:, :-1]) for x, y in batches)
    return shifted and onward and within


@pytest.mark.parametrize("count", [40, 41, 47, 100, 101])
def test_shifted_passes_have_full_windows_as_many_at_every_offset(count: int) -> None:
    rows, steps = 3, 5
    loader = Streams(torch.arange(count), rows, steps, shift=True)
    starts = set()
    torch.manual_seed(0)
    for _ in range(100):
        batches = list(loader)
        assert len(batches) == len(loader) == (count - steps) // (rows * steps)
        assert all(x.shape == y.shape == (rows, steps) for x, y in batches)
        assert continues(batches)
        starts.add(int(batches[0][0][0, 0]))
        seen = torch.cat([y.flatten() for _, y in batches]).tolist()
        assert len(seen) == len(set(seen))
    assert starts == set(range(steps))


def test_a_sequence_too_short_for_a_shifted_window_has_none() -> None:
    assert len(Streams(torch.arange(4), 2, 5, shift=True)) == 0
    assert len(Streams(torch.arange(14), 2, 5, shift=True)) == 0
    assert [len(Streams(torch.arange(15), 2, 5, shift=True)), len(Streams(torch.arange(0), 2, 5))] == [1, 0]
    assert [list(Streams(torch.arange(n), 2, 5, shift)) for n in range(3) for shift in (True, False)] == [[]] * 6


def test_the_offset_follows_from_the_global_seed_and_differs_between_passes() -> None:
    loader = Streams(torch.arange(1000), 2, 50, shift=True)
    passes = []
    for seed in (1, 1, 2):
        L.seed_everything(seed, verbose=False)
        passes.append([[x.tolist() for x, _ in loader] for _ in range(3)])
    assert passes[0] == passes[1]
    assert passes[0] != passes[2]
    assert passes[0][0] != passes[0][1]


# ---- the data module -----------------------------------------------------------------------------------------------


def test_the_text_is_split_in_its_order(tmp_path: Path) -> None:
    text = letters(5000)
    corpus = (data := Text(file(tmp_path, text), val_share=0.1, test_share=0.2)).corpus
    assert data.decode(torch.cat([corpus.train, corpus.val, corpus.test])) == text
    # the largest sizes of at most 500 and 1000 that are one more than a multiple of 32
    assert [len(corpus.val), len(corpus.test)] == [481, 993]
    assert all(len(part) % STREAMS == 1 for part in (corpus.val, corpus.test))


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 1), (4, 7), (32, 64)])
def test_validation_and_test_are_covered_once_whatever_the_batches(batch_size: int, steps: int, tmp_path: Path) -> None:
    data = Text(file(tmp_path, letters(5000)), batch_size=batch_size, steps=steps)
    for loader, part in ((data.val_dataloader(), data.corpus.val), (data.test_dataloader(), data.corpus.test)):
        batches = list(loader)
        assert torch.equal(torch.cat([x for x, _ in batches], dim=1).flatten(), part[:-1])
        assert torch.equal(torch.cat([y for _, y in batches], dim=1).flatten(), part[1:])
        assert all(x.shape == (STREAMS, steps) for x, _ in batches[:-1])


def test_training_batches_are_streams_of_the_training_part(tmp_path: Path) -> None:
    data = Text(file(tmp_path, letters(3000)), batch_size=5, steps=8)
    torch.manual_seed(3)
    batches = list(data.train_dataloader())
    train = data.decode(data.corpus.train)
    rows = [data.decode(torch.cat([x[b] for x, _ in batches])) for b in range(5)]
    following = [data.decode(torch.cat([y[b] for _, y in batches])) for b in range(5)]
    torch.manual_seed(3)
    offset = int(torch.randint(8, ()))
    length = (len(train) - 1 - offset) // 5
    for b in range(5):
        at = offset + b * length
        assert rows[b] == train[at : at + len(rows[b])]
        assert following[b] == train[at + 1 : at + 1 + len(rows[b])]
    assert len(rows[0]) > 0.95 * length
    x, y = batches[0]
    assert (x.dtype, y.dtype, x.shape, y.shape) == (torch.int64, torch.int64, (5, 8), (5, 8))
    assert data.input_shape == (8,)


def test_the_vocabulary_is_that_of_training_and_the_rest_is_unseen(tmp_path: Path) -> None:
    text = letters(2200, of="ba") + letters(300, of="abzö€😀")  # training ends at 2,050
    data = Text(file(tmp_path, text))
    assert data.vocabulary == ("\N{REPLACEMENT CHARACTER}", "a", "b")
    assert data.vocab_size == 3
    assert data.encode("abc😀").tolist() == [1, 2, 0, 0]
    assert data.encode("").tolist() == []
    assert data.decode(torch.tensor([[1, 2], [2, 0]])) == "abb\N{REPLACEMENT CHARACTER}"
    assert set(data.corpus.val.tolist()) == {0, 1, 2}
    assert not hasattr(data, "num_classes")


def test_encoding_is_undone_by_decoding(tmp_path: Path) -> None:
    text = letters(3000, of="aä漢😀\n\t~")
    data = Text(file(tmp_path, text))
    assert data.decode(data.encode(text)) == text
    assert [data.encode(c).tolist() for c in data.vocabulary[1:]] == [[i] for i in range(1, data.vocab_size)]
    assert list(data.vocabulary[1:]) == sorted("aä漢😀\n\t~")


def test_a_folder_s_files_are_joined_in_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    file(tmp_path, letters(900, 1), "c.txt")
    file(tmp_path, letters(900, 2), "b/z.txt")
    file(tmp_path, letters(900, 3), "a.txt")
    file(tmp_path, letters(900, 4), "d.md")
    expected = "\n".join(letters(900, seed) for seed in (3, 2, 1))
    data = Text(str(tmp_path))
    corpus = data.corpus
    assert data.decode(torch.cat([corpus.train, corpus.val, corpus.test])) == expected
    assert Text(str(tmp_path), pattern="*.md").files == (tmp_path / "d.md",)


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    text = letters(3000)
    plain = Text(file(tmp_path, text)).fingerprint()
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert Text(str(tmp_path / "b.txt")).fingerprint() == plain


def test_without_a_path_it_is_python_s_manual() -> None:
    from pydoc_data.topics import topics

    data = Text()
    assert data.corpus is Text(batch_size=2).corpus
    whole = "\n".join(topics[name] for name in sorted(topics))
    assert data.decode(data.corpus.train[:1000]) == whole[:1000]
    assert sum(map(len, (data.corpus.train, data.corpus.val, data.corpus.test))) == len(whole)
    assert len(whole) > 400_000


def test_the_fingerprint_knows_the_characters_and_not_the_batches(tmp_path: Path) -> None:
    text = letters(3000)
    path = file(tmp_path, text)
    here = Text(path).fingerprint()
    assert Text(path, batch_size=2, steps=5).fingerprint() == here
    assert Text(path, val_share=0.2).fingerprint() != here
    other = file(tmp_path, text.translate({ord("a"): "\t"}).translate({}), "other.txt")
    assert Text(other).fingerprint() != here
    capitals = file(tmp_path, text.upper(), "upper.txt")  # the same numbers for other characters
    assert torch.equal(Text(capitals).corpus.train, Text(path).corpus.train)
    assert Text(capitals).fingerprint() != here


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = file(tmp_path, letters(3000))
    first = Text(path)
    assert Text(path, steps=3).corpus is first.corpus
    file(tmp_path, letters(3000, seed=1))
    os.utime(path, ns=(1, 1))
    assert Text(path).fingerprint() != first.fingerprint()


def test_texts_that_are_too_short_are_told(tmp_path: Path) -> None:
    short = file(tmp_path, letters(300), "short.txt")
    assert "must leave 33 characters or more for validation and for the test, and 2 for training, but 300" in told(
        short
    )
    path = file(tmp_path, letters(1000))
    train = len(Text(path).corpus.train)
    with pytest.raises(TrialImpossible, match="the training part must have") as caught:
        Text(path).train_dataloader()
    assert f"(batch_size + 1) × steps = 2112 characters at least, but has {train}. Give more text" in str(caught.value)
    # other configurations can be trained on it, so the study goes on
    assert isinstance(caught.value, TrialFailed)
    assert isinstance(caught.value, ValueError)
    assert not isinstance(caught.value, StudyStopped)
    # exactly as many as are needed will do
    steps = train // 4
    assert len(list(Text(path, batch_size=3, steps=steps).train_dataloader())) == 1
    with pytest.raises(TrialImpossible, match="characters at least"):
        Text(path, batch_size=3, steps=steps + 1).train_dataloader()


def test_no_test_part_is_possible(tmp_path: Path) -> None:
    data = Text(file(tmp_path, letters(1000)), test_share=0)
    assert len(data.corpus.test) == 0
    assert list(data.test_dataloader()) == []
    assert len(data.fingerprint()) == 64


def test_text_in_another_encoding_is_told_with_its_file_and_byte(tmp_path: Path) -> None:
    file(tmp_path, letters(3000))
    raw = b"x\ny" * 10 + "ß".encode("latin-1")
    (tmp_path / "b.txt").write_bytes(raw)
    message = told(str(tmp_path))
    assert message.startswith(f"{tmp_path / 'b.txt'} has 1 problem:")
    assert "line 11  must be UTF-8 text, but byte 30 is 0xdf" in message


def test_a_byte_is_counted_from_the_file_s_start_even_behind_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    assert "byte 5 is 0xff" in told(str(tmp_path / "b.txt"))


def test_files_must_be_there_at_birth(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pattern  must match a file of the folder, but '\*\.txt' matches none"):
        Text(str(tmp_path))
    with pytest.raises(DataError, match="there is no such file or folder"):
        Text(str(tmp_path / "none.txt"))


def test_full_batches_make_no_sense_and_are_told() -> None:
    with pytest.raises(
        ValueError, match="batch_size must be a whole number for Text, but got 'full': it is the number"
    ):
        Text(batch_size="full")


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"steps": 0}, {"val_share": 0.0}, {"test_share": 1.0}], ids=str
)
def test_arguments_outside_their_range_are_told(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Text(**arguments)  # type: ignore[arg-type]
