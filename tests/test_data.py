"""The data: splits that every trial shares, standardised by the training split alone, batched by one index."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from tuner.data import Digits, InMemory, TensorLoader
from tuner.data.digits import _digits
from tuner.data.division import stratified
from tuner.data.in_memory import Splits, standardise
from tuner.data.loader import evaluation_size

GOLDEN = "0e85747eaadadff9a73a8d96d44f4cdf75ddd2df89b4498bb958fb0e65059abf"
"""The fingerprint of splits_of(1.0, 2.0): stored fingerprints are compared with new ones."""


def parts_of(data: Digits) -> dict[str, tuple[Tensor, Tensor]]:
    splits = data.splits()
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def rows(x: Tensor) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in x}


# ---- digits --------------------------------------------------------------------------------------------------------


def test_digits_are_vectors_of_64_or_images_of_8_by_8() -> None:
    flat, images = Digits().splits(), Digits(flat=False).splits()
    assert flat.train[0].shape[1:] == (64,)
    assert images.train[0].shape[1:] == (1, 8, 8)
    assert torch.equal(flat.train[0], images.train[0].flatten(1))
    assert (flat.train[0].dtype, flat.train[1].dtype) == (torch.float32, torch.int64)
    assert (Digits().input_shape, Digits(flat=False).input_shape, Digits.num_classes) == ((64,), (1, 8, 8), 10)


def test_digits_are_split_60_20_20_and_nothing_is_lost() -> None:
    sizes = {name: len(y) for name, (_, y) in parts_of(Digits()).items()}
    assert sum(sizes.values()) == 1797
    assert sizes["val"] == pytest.approx(0.2 * 1797, abs=5)
    assert sizes["test"] == pytest.approx(0.2 * 1797, abs=5)
    assert all(len(x) == len(y) for x, y in parts_of(Digits()).values())


def test_the_shares_can_be_chosen() -> None:
    sizes = {name: len(y) for name, (_, y) in parts_of(Digits(val_share=0.5, test_share=0.0)).items()}
    assert sizes["test"] == 0
    assert sizes["val"] == pytest.approx(1797 / 2, abs=5)
    assert sum(sizes.values()) == 1797


def test_every_class_keeps_its_share_in_every_split() -> None:
    whole = Counter(load_digits().target.tolist())
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        counts = Counter(parts_of(Digits())[name][1].tolist())
        for digit in range(10):
            assert counts[digit] == pytest.approx(share * whole[digit], abs=1.01), (name, digit)


def test_no_sample_is_in_two_splits() -> None:
    assert len(rows(torch.tensor(load_digits().data))) == 1797, "the images all differ"
    splits = [rows(x) for x, _ in parts_of(Digits()).values()]
    assert len(set.union(*splits)) == 1797


def test_samples_keep_their_labels_and_pixels() -> None:
    digits = load_digits()
    label_of = {tuple(image.astype(int)): int(label) for image, label in zip(digits.data, digits.target, strict=True)}
    x, y = Digits().splits().train
    low, high = x.min(), x.max()  # black is 0 and white is 16 before standardising
    pixels = ((x - low) / (high - low) * 16).round().int()
    assert all(label_of[tuple(image)] == label for image, label in zip(pixels.tolist(), y.tolist(), strict=True))


def test_the_seed_changes_the_split() -> None:
    one, other = (rows(Digits(seed=seed).splits().test[0].mul(1000).round()) for seed in (0, 1))
    assert len(one & other) < len(one) / 2


def test_the_seed_of_a_trial_does_not_change_the_split() -> None:
    found = []
    for trial in (1, 2):
        torch.manual_seed(trial)
        _digits.cache_clear()
        found.append(Digits().fingerprint())
    assert found[0] == found[1]


def test_preparing_the_split_draws_nothing_from_the_trial_s_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    _digits.cache_clear()
    Digits(seed=5).splits()
    assert torch.equal(torch.rand(3), expected)


def test_the_training_split_alone_is_standardised_to_mean_0_and_deviation_1() -> None:
    parts = parts_of(Digits())
    assert parts["train"][0].double().mean().item() == pytest.approx(0.0, abs=1e-5)
    assert parts["train"][0].double().std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    for name in ("val", "test"):
        assert abs(parts[name][0].double().mean().item()) > 1e-5


def test_other_splits_are_standardised_with_the_training_split_s_statistics() -> None:
    # mean 2, deviation 1 in the first feature; the second is constant
    train, other = standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[2.0, 5.0], [6.0, 7.0]]))
    assert train.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert other.tolist() == [[0.0, 0.0], [4.0, 0.0]], "what training cannot know of is 0 everywhere"


def test_images_are_standardised_over_everything_but_their_channels() -> None:
    images = torch.tensor([[[[0.0, 4.0]], [[1.0, 1.0]]]])  # (1, 2, 1, 2)
    (train,) = standardise(images, over=(0, 2, 3))
    assert train.tolist() == [[[[-1.0, 1.0]], [[0.0, 0.0]]]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"val_share": 0.0},
        {"val_share": 1.0},
        {"val_share": -0.2},
        {"test_share": -0.1},
        {"val_share": 0.5, "test_share": 0.5},
        {"val_share": 0.7, "test_share": 0.4},
    ],
)
def test_shares_that_leave_nothing_to_train_on_are_told(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must leave training data"):
        Digits(**arguments)


@pytest.mark.parametrize("size", ["half", "64", ""])
def test_a_batch_size_in_words_is_full_or_a_mistake(size: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number or 'full'"):
        Digits(batch_size=size)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_told_when_the_data_module_is_made(size: int) -> None:
    # Before anything runs: a study that fixes such a size must be refused, not fail trial after trial.
    with pytest.raises(ValueError, match="at least 1"):
        Digits(batch_size=size)


# ---- fingerprint ---------------------------------------------------------------------------------------------------


def test_equal_data_has_an_equal_fingerprint_whatever_the_batch_size() -> None:
    here = Digits(seed=2).fingerprint()
    _digits.cache_clear()
    assert Digits(seed=2, batch_size=8).fingerprint() == here


def test_a_fingerprint_is_the_same_in_every_process_and_version() -> None:
    assert splits_of(1.0, 2.0).fingerprint() == GOLDEN


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"flat": False}, {"val_share": 0.25}, {"test_share": 0.1}], ids=lambda c: next(iter(c))
)
def test_another_preparation_has_another_fingerprint(changed: dict[str, Any]) -> None:
    assert Digits(**changed).fingerprint() != Digits().fingerprint()


def splits_of(*values: float) -> Splits:
    x, y = torch.tensor([[v] for v in values]), torch.zeros(len(values), dtype=torch.int64)
    return Splits((x, y), (x, y), (x, y))


def test_one_value_one_label_or_one_type_changes_the_fingerprint() -> None:
    base = splits_of(1.0, 2.0)
    others = [
        splits_of(1.0, 2.0000002),
        splits_of(2.0, 1.0),
        splits_of(1.0, 2.0, 3.0),
        Splits(base.train, base.val, (base.test[0], torch.tensor([0, 1]))),
        Splits(base.train, base.val, (base.test[0].double(), base.test[1])),
        Splits(base.train, base.val, (base.test[0].reshape(1, 2), base.test[1])),
    ]
    prints = [splits.fingerprint() for splits in (base, *others)]
    assert len(set(prints)) == 7
    assert splits_of(1.0, 2.0).fingerprint() == prints[0]


# ---- stratified ----------------------------------------------------------------------------------------------------


def test_stratified_parts_cover_every_index_once() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    parts = stratified(labels, (0.2, 0.1), seed=0)
    assert [len(part) for part in parts] == [70, 20, 10]
    assert sorted(torch.cat(parts).tolist()) == list(range(100))
    assert [labels[part].bincount().tolist() for part in parts] == [[35, 21, 14], [10, 6, 4], [5, 3, 2]]


def test_stratified_parts_follow_from_the_seed_alone() -> None:
    labels = torch.arange(100) % 4
    first = stratified(labels, (0.5,), seed=1)
    torch.manual_seed(99)
    again, other = stratified(labels, (0.5,), seed=1), stratified(labels, (0.5,), seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


# ---- batches -------------------------------------------------------------------------------------------------------


def test_training_batches_have_the_size_asked_for_and_cover_the_split_once() -> None:
    loader = Digits(batch_size=100).train_dataloader()
    batches = list(loader)
    x, y = Digits().splits().train
    assert len(batches) == len(loader) == -(-len(y) // 100)
    assert {len(labels) for _, labels in batches[:-1]} == {100}
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(y.tolist())
    assert rows(torch.cat([inputs for inputs, _ in batches])) == rows(x)


def test_a_full_batch_is_the_whole_training_split() -> None:
    ((x, y),) = list(Digits(batch_size="full").train_dataloader())
    assert len(x) == len(y) == len(Digits().splits().train[1])


def test_a_batch_larger_than_the_split_is_the_whole_split() -> None:
    assert [len(y) for _, y in Digits(batch_size=10**6).train_dataloader()] == [len(Digits().splits().train[1])]


def test_the_order_of_training_batches_follows_torch_s_global_seed() -> None:
    loader = Digits(batch_size=64).train_dataloader()
    orders = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        orders.append([y.tolist() for _, y in loader])
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_each_epoch_has_an_order_of_its_own() -> None:
    torch.manual_seed(0)
    loader = Digits(batch_size=64).train_dataloader()
    assert [y.tolist() for _, y in loader] != [y.tolist() for _, y in loader]


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_come_in_a_fixed_order(split: str) -> None:
    data = Digits(batch_size=16)
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    x, y = parts_of(data)[split]
    for _ in range(2):
        batches = list(loader)
        assert torch.equal(torch.cat([inputs for inputs, _ in batches]), x)
        assert torch.equal(torch.cat([labels for _, labels in batches]), y)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((64,), 1024),
        ((3, 32, 32), 1024),
        ((3, 224, 224), 27),
        ((4096,), 1024),
        ((8192,), 512),
        ((3, 4000, 4000), 1),
        ((), 1024),
    ],
)
def test_evaluation_batches_are_large_but_for_large_inputs(shape: tuple[int, ...], size: int) -> None:
    assert evaluation_size(shape) == size


def test_evaluation_batches_hold_what_memory_can_and_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(Digits().val_dataloader())
    monkeypatch.setattr("tuner.data.loader.EVALUATED", 64 * 50)
    cut = list(Digits().val_dataloader())
    assert {len(y) for _, y in cut[:-1]} == {50}
    for one, other in zip(zip(*whole, strict=True), zip(*cut, strict=True), strict=True):
        assert torch.equal(torch.cat(one), torch.cat(other))


def test_in_memory_data_is_abstract() -> None:
    assert InMemory.splits.__isabstractmethod__  # type: ignore[attr-defined]


# ---- the loader against a plain loop -------------------------------------------------------------------------------


def by_a_plain_loop(tensors: tuple[Tensor, ...], size: int, order: list[int]) -> list[tuple[list[Any], ...]]:
    batches: list[tuple[list[Any], ...]] = []
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batches.append(tuple([tensor[i].tolist() for i in chosen] for tensor in tensors))
    return batches


def listed(loader: TensorLoader) -> list[tuple[list[Any], ...]]:
    return [tuple(part.tolist() for part in batch) for batch in loader]


TENSORS = (torch.arange(22.0).reshape(11, 2), torch.arange(11), torch.arange(33).reshape(11, 3, 1))


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 12, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_loader_gives_what_a_plain_loop_gives(size: int, shuffle: bool) -> None:
    loader = TensorLoader(TENSORS, size, shuffle=shuffle)
    torch.manual_seed(4)
    batches = listed(loader)
    torch.manual_seed(4)
    order = torch.randperm(11).tolist() if shuffle else list(range(11))
    expected = by_a_plain_loop(TENSORS, size, order)
    if shuffle and size > 1 and len(expected) > 1 and len(expected[-1][0]) == 1:
        last = expected.pop()
        expected[-1] = tuple(before + alone for before, alone in zip(expected[-1], last, strict=True))
    assert batches == expected
    assert len(loader) == len(batches)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (9, 4, [4, 5]),  # the ninth sample would be alone
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (3, 2, [3]),
        (1, 4, [1]),  # nothing to join
        (3, 1, [1, 1, 1]),  # asked for
        (0, 4, []),
    ],
)
def test_a_last_single_sample_joins_the_batch_before_in_training_only(count: int, size: int, sizes: list[int]) -> None:
    tensors = (torch.arange(count),)
    loader = TensorLoader(tensors, size, shuffle=True)
    assert [len(batch) for (batch,) in loader] == sizes
    assert len(loader) == len(sizes)
    if count:
        plain = TensorLoader(tensors, size)
        assert [len(batch) for (batch,) in plain] == [len(part) for part in tensors[0].split(size)]
        assert len(plain) == -(-count // size)


def test_a_shuffled_pass_keeps_samples_together_and_really_shuffles() -> None:
    torch.manual_seed(0)
    batches = listed(TensorLoader(TENSORS, 4, shuffle=True))
    labels = [label for _, part, _ in batches for label in part]
    assert sorted(labels) == list(range(11))
    assert labels != list(range(11))
    for xs, ys, zs in batches:
        assert [x[0] for x in xs] == [2.0 * y for y in ys]
        assert [z[0][0] for z in zs] == [3 * y for y in ys]


def test_without_shuffling_the_loader_draws_nothing() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    listed(TensorLoader(TENSORS, 4))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_of_no_samples_is_a_mistake(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, but got {size}"):
        TensorLoader(TENSORS, size)
