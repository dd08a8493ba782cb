"""Pictures in folders: which are found, how they are decoded, and that memory changes nothing of what trials see."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tuner.data import ImageFolder, TensorLoader
from tuner.data.reading.pictures import ChannelMoments, IndexBatches, Pictures, decode_all
from tuner.errors import DataError, TrialImpossible


def draw(path: Path, seed: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, bands)).astype(np.uint8)
    Image.fromarray(pixels.squeeze(), mode=None).save(path)


def classes(root: Path, count: int = 10, names: tuple[str, ...] = ("cat", "dog"), start: int = 0) -> Path:
    for k, name in enumerate(names):
        for i in range(count):
            draw(root / name / f"{i:02}.png", start + 100 * k + i)
    return root


def told(root: Path, **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        ImageFolder(str(root), **arguments).splits()
    return str(caught.value)


def whole(data: ImageFolder, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    loader = {"val": data.val_dataloader, "test": data.test_dataloader, "train": data.train_dataloader}[part]()
    batches = list(loader)
    return torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])


def test_classes_are_folders_and_their_split_keeps_their_shares(tmp_path: Path) -> None:
    data = ImageFolder(str(classes(tmp_path, names=("dog", "cat", "eel"))), image_size=[4, 3])
    splits = data.splits()
    assert (data.class_names, data.num_classes, data.input_shape) == (("cat", "dog", "eel"), 3, (3, 4, 3))
    assert [torch.bincount(y).tolist() for _, y in (splits.train, splits.val, splits.test)] == [
        [6] * 3,
        [2] * 3,
        [2] * 3,
    ]
    assert splits.train[0].shape == (18, 3, 4, 3)
    assert (splits.train[0].dtype, splits.train[1].dtype) == (torch.float32, torch.int64)
    assert splits.fingerprint() != ImageFolder(str(tmp_path), image_size=[4, 3], seed=1).fingerprint()


def test_pixels_are_those_of_the_files_standardised_by_channel_with_training_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    classes(root / "train")
    classes(root / "val", count=2, start=1000)
    classes(root / "test", count=3, start=2000)
    splits = ImageFolder(str(root), image_size=[6, 5]).splits()

    def raw(part: str) -> np.ndarray[Any, Any]:
        files = [path for name in ("cat", "dog") for path in sorted((root / part / name).iterdir())]
        return np.stack([np.asarray(Image.open(path)) for path in files]).transpose(0, 3, 1, 2) / 255

    train = raw("train")
    mean, deviation = train.mean(axis=(0, 2, 3), keepdims=True), train.std(axis=(0, 2, 3), keepdims=True)
    for part, (x, y) in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        assert np.allclose(x, (raw(part) - mean) / deviation, atol=1e-5), part
        assert y.tolist() == [0] * (len(y) // 2) + [1] * (len(y) // 2)


def test_a_split_without_a_folder_is_drawn_from_train(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "test", count=4, start=1000)
    splits = ImageFolder(str(tmp_path), val_share=0.3).splits()
    assert [len(y) for _, y in (splits.train, splits.val, splits.test)] == [14, 6, 8]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert ImageFolder(str(classes(tmp_path, names=("train", "car")))).class_names == ("car", "train")
    # but not if it holds folders, which then may as well be classes
    (tmp_path / "train" / "deep").mkdir()
    (tmp_path / "train" / "00.png").rename(tmp_path / "train" / "deep" / "00.png")
    assert "car           is beside folders of splits, but must be one: train, val or test. Rename it" in told(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid", "test"),
        ("train", "validation", "test"),
        ("Train", "Dev", "Test"),
        ("TRAIN", "VAL", "TEST"),
        ("Training", "Valid", "Testing"),
    ],
    ids=str,
)
def test_splits_are_understood_however_they_are_usually_spelt(names: tuple[str, ...], tmp_path: Path) -> None:
    for k, name in enumerate(names):
        classes(tmp_path / name, count=3 + k, start=1000 * k)
    data = ImageFolder(str(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert [len(y) for _, y in (data.splits().train, data.splits().val, data.splits().test)] == [6, 8, 10]


def test_folders_beside_train_that_are_no_splits_are_told_and_never_taken_for_classes(tmp_path: Path) -> None:
    for name in ("train", "holdout", "Validation", "val"):
        classes(tmp_path / name, count=5)
    message = told(tmp_path)
    assert "has 2 problems" in message
    assert "holdout  is beside folders of splits, but must be one: train, val or test" in message
    assert "val      must not name the same split as 'Validation'. Join them." in message
    classes(tmp_path / "other" / "valid")
    classes(tmp_path / "other" / "test")
    assert "must hold train beside its other splits, but does not" in told(tmp_path / "other")


def test_links_to_folders_are_told_and_not_followed(tmp_path: Path) -> None:
    root = classes(tmp_path / "root")
    (root / "cat" / "again").symlink_to(root, target_is_directory=True)
    assert "cat/again  is a link to a folder, which is not followed. Move the folder here." in told(root)
    (root / "cat" / "again").unlink()
    (root / "eel").symlink_to(root / "cat", target_is_directory=True)
    assert "eel  is a link to a folder, which is not followed" in told(root)
    (root / "eel").unlink()
    (root / "fox").symlink_to(root / "nowhere")
    assert "fox  is a file beside the classes' folders" in told(root)
    (root / "fox").unlink()
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert ImageFolder(str(tmp_path / "link")).class_names == ("cat", "dog")
    (tmp_path / "splits").mkdir()
    classes(tmp_path / "splits" / "train")
    (tmp_path / "splits" / "test").symlink_to(root, target_is_directory=True)
    assert "test  is a link to a folder, which is not followed" in told(tmp_path / "splits")


def test_grey_pictures_and_one_number_for_the_size(tmp_path: Path) -> None:
    data = ImageFolder(str(classes(tmp_path)), mode="L", image_size=4)
    assert data.splits().train[0].shape[1:] == data.input_shape == (1, 4, 4)


def test_modes_and_suffixes_are_taken_as_they_come(tmp_path: Path) -> None:
    classes(tmp_path, count=6)
    draw(tmp_path / "cat" / "grey.JPG", 1, mode="L")
    draw(tmp_path / "cat" / "deep" / "clear.webp", 2, mode="RGBA")
    draw(tmp_path / "dog" / "flat.bmp", 3, size=(1, 9))
    Image.new("P", (3, 3)).save(tmp_path / "dog" / "palette.gif", transparency=0)
    (tmp_path / "dog" / ".DS_Store").write_text("")
    (tmp_path / "dog" / "Thumbs.db").write_text("")
    (tmp_path / ".git").mkdir()
    data = ImageFolder(str(tmp_path), image_size=4)
    names = {picture.file.path.name for picture in data.listing.pictures}
    assert {"grey.JPG", "clear.webp", "flat.bmp", "palette.gif"} <= names
    assert len(names | {"Thumbs.db"}) == 11
    assert sum(len(y) for _, y in (data.splits().train, data.splits().val, data.splits().test)) == 16


def test_pictures_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    root = classes(tmp_path, count=6)
    image = Image.new("L", (4, 2))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90° clockwise
    image.save(root / "cat" / "turned.png", exif=exif)
    data = ImageFolder(str(root), mode="L", image_size=[4, 2])
    place = next(i for i, p in enumerate(data.listing.pictures) if p.file.path.name == "turned.png")
    (pixels,) = decode_all(data.listing, [place], data.asked)
    assert pixels[0].nonzero().tolist() == [[0, 1]]  # the upper left corner has come to the upper right


@pytest.mark.parametrize("workers", [0, 1])
def test_decoding_batch_by_batch_gives_the_same_tensors_as_memory(workers: int, tmp_path: Path) -> None:
    root = str(classes(tmp_path, count=11))
    held = ImageFolder(root, image_size=[4, 3], batch_size=4)
    streamed = ImageFolder(root, image_size=[4, 3], batch_size=4, max_memory_gb=0, workers=workers)
    assert (held.held, streamed.held) == (True, False)
    assert isinstance(held.train_dataloader(), TensorLoader)
    assert isinstance(streamed.train_dataloader(), DataLoader)
    assert (held.class_names, held.input_shape) == (streamed.class_names, streamed.input_shape)
    for part in ("val", "test"):
        assert all(torch.equal(a, b) for a, b in zip(whole(held, part), whole(streamed, part), strict=True))
    for data in (held, streamed):
        torch.manual_seed(5)
        found = list(data.train_dataloader()) + list(data.train_dataloader())
        if data is held:
            expected = found
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_memory_is_measured_against_what_the_tensors_take(tmp_path: Path) -> None:
    root = str(classes(tmp_path))
    data = ImageFolder(root, image_size=8)
    taken = sum(x.numel() * x.element_size() for x, _ in (data.splits().train, data.splits().val, data.splits().test))
    assert data.gigabytes == pytest.approx(taken / 1e9)
    assert ImageFolder(root, image_size=8, max_memory_gb=taken / 1e9).held
    small = ImageFolder(root, image_size=8, max_memory_gb=0.999 * taken / 1e9)
    assert not small.held
    with pytest.raises(ValueError, match="must fit into max_memory_gb"):
        small.splits()


def test_training_batches_that_are_decoded_never_end_with_a_single_picture(tmp_path: Path) -> None:
    data = ImageFolder(str(classes(tmp_path, count=11)), batch_size=5, max_memory_gb=0, test_share=0.1)
    sizes = [len(batch[1]) for batch in data.train_dataloader()]
    assert sizes == [5, 5, 6]


def test_full_batches_of_pictures_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    root = str(classes(tmp_path))
    assert [len(batch[1]) for batch in ImageFolder(root, batch_size="full").train_dataloader()] == [12]
    with pytest.raises(TrialImpossible, match="batch_size: full must have all pictures in memory, but they take"):
        ImageFolder(root, batch_size="full", max_memory_gb=0).train_dataloader()


@pytest.mark.skipif(sys.platform != "linux", reason="measures in units of Linux")
def test_preparing_takes_little_more_memory_than_the_pictures() -> None:
    # In a process of its own, whose peak is known; 79 MB of pictures.
    code = """
import pathlib, resource, tempfile, numpy, torch
from PIL import Image
from tuner.data import ImageFolder
from tuner.data.reading.pictures import ChannelMoments
with tempfile.TemporaryDirectory() as folder:
    for i in range(100):
        path = pathlib.Path(folder, "ab"[i % 2], f"{i}.bmp")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(numpy.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype("uint8")).save(path)
    ImageFolder(folder, image_size=8).splits()  # imports what it needs
    data = ImageFolder(folder, image_size=256)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data.splits()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9 / data.gigabytes)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(told.splitlines()[-1]) < 1.6


def test_the_moments_of_channels_are_those_of_all_their_values() -> None:
    images = torch.randint(0, 256, (7, 3, 4, 5), dtype=torch.uint8)
    images[:, 1] = 77
    found = ChannelMoments.of(images)
    values = images.double() / 255
    assert torch.allclose(found.mean.flatten().double(), values.mean(dim=(0, 2, 3)), atol=1e-7)
    deviation = values.std(dim=(0, 2, 3), correction=0)
    assert torch.allclose(found.deviation.flatten().double()[::2], deviation[::2], atol=1e-7)
    assert (found.standardise(images)[:, 1] == 0).all()
    assert (found.standardise(255 - images)[:, 1] == 0).all(), "a constant of training is 0 everywhere"
    assert torch.equal(ChannelMoments.of(images.flip(0)).deviation, found.deviation), "exact in any order"


def test_the_statistics_of_streamed_pictures_do_not_keep_them(tmp_path: Path) -> None:
    listing = ImageFolder(str(classes(tmp_path))).listing
    asked = ImageFolder(str(tmp_path)).asked
    alive: list[weakref.ref[torch.Tensor]] = []

    def watched() -> Iterator[torch.Tensor]:
        for image in decode_all(listing, range(20), asked):
            assert sum(ref() is not None for ref in alive) <= 1
            alive.append(weakref.ref(image))
            yield image

    ChannelMoments.of(watched())
    assert len(alive) == 20


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_a_data_error_from_a_worker_process_too(workers: int, tmp_path: Path) -> None:
    root = classes(tmp_path)
    data = ImageFolder(str(root), max_memory_gb=0, workers=workers)
    broken = data.listing.pictures[int(data._pictures.parts[1][0])].file.path
    broken.write_text("no picture")
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        list(data.val_dataloader())
    assert str(broken) in str(caught.value)
    assert any(str(broken) in f"{problem.path} {problem.message}" for problem in caught.value.problems)


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_large_pictures_are_evaluated_in_small_batches(memory: float, tmp_path: Path) -> None:
    data = ImageFolder(str(classes(tmp_path)), image_size=1000, max_memory_gb=memory)  # 3,000,000 values
    assert [len(y) for _, y in data.val_dataloader()] == [len(y) for _, y in data.test_dataloader()] == [1] * 4


@pytest.mark.parametrize(("count", "size"), [(9, 4), (10, 4), (1, 4), (5, 1), (3, 9)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_index_batches_are_those_of_the_tensor_loader(count: int, size: int, shuffle: bool) -> None:
    part = torch.arange(100, 100 + count)
    found = []
    for loader in (TensorLoader((part,), size, shuffle), IndexBatches(part, size, shuffle)):
        torch.manual_seed(1)
        found.append([list(map(int, batch[0] if isinstance(batch, tuple) else batch)) for batch in loader])
        assert len(loader) == len(found[-1])
    assert found[0] == found[1]


def test_statistics_of_pictures_not_in_memory_come_from_training_alone(
    tmp_path: Path,
) -> None:
    root = classes(tmp_path, count=10)
    data = ImageFolder(str(root), image_size=4, max_memory_gb=0)
    val, test = whole(data, "val"), whole(data, "test")
    for path in (data.listing.pictures[i].file.path for i in data._pictures.parts[2].tolist()):
        Image.new("RGB", (5, 6), (255, 255, 255)).save(path)
    after = ImageFolder(str(root), image_size=4, max_memory_gb=0)
    assert all(torch.equal(a, b) for a, b in zip(val, whole(after, "val"), strict=True))
    assert not torch.equal(test[0], whole(after, "test")[0])


def test_statistics_of_many_pictures_come_from_a_sample_drawn_by_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ImageFolder(root := str(classes(tmp_path, count=6)), image_size=4).asked
    listing = ImageFolder(root).listing
    means = [Pictures(listing, asked).moments.mean]
    monkeypatch.setattr("tuner.data.reading.pictures.SAMPLE", 5)
    means += [Pictures(listing, asked).moments.mean, Pictures(listing, asked).moments.mean]
    assert torch.equal(means[1], means[2])
    assert not torch.allclose(means[0], means[1])
    train = Pictures(listing, asked).parts[0].tolist()

    def mean_of(chosen: Iterable[int]) -> torch.Tensor:
        return torch.stack(list(decode_all(listing, chosen, asked))).double().div(255).mean(dim=(0, 2, 3)).float()

    first = mean_of(train[:5])
    assert not torch.allclose(first, means[1].flatten(), atol=1e-6), "the first ones are all of one class"
    fives = (mean_of(chosen) for chosen in combinations(train, 5))
    assert any(torch.allclose(mean, means[1].flatten(), atol=1e-6) for mean in fives)


def test_fingerprints_know_another_preparation_and_another_file(tmp_path: Path) -> None:
    root = classes(tmp_path)
    for memory in (4.0, 0.0):
        prints = [
            ImageFolder(str(root), max_memory_gb=memory, **arguments).fingerprint()
            for arguments in ({}, {"batch_size": 3}, {"seed": 1}, {"image_size": 8}, {"mode": "L"}, {"val_share": 0.3})
        ]
        assert prints[0] == prints[1]
        assert len(set(prints)) == 5
        Image.new("RGB", (50, 50)).save(root / "cat" / "00.png")
        assert ImageFolder(str(root), max_memory_gb=memory).fingerprint() != prints[0]
        classes(tmp_path)


def test_a_changed_picture_is_decoded_again_and_an_unchanged_folder_is_not(tmp_path: Path) -> None:
    root = classes(tmp_path)
    first = ImageFolder(str(root)).splits()
    assert ImageFolder(str(root), batch_size=2).splits() is first
    os.utime(root / "cat" / "00.png", ns=(1, 1))
    assert ImageFolder(str(root)).splits() is not first
    draw(root / "cat" / "new.png", 77)
    splits = ImageFolder(str(root)).splits()
    assert sum(len(y) for _, y in (splits.train, splits.val, splits.test)) == 21


# ---- what is wrong -------------------------------------------------------------------------------------------------


def test_broken_pictures_are_all_told_with_their_paths(tmp_path: Path) -> None:
    root = classes(tmp_path)
    (root / "cat" / "03.png").write_text("no picture")
    whole_file = (root / "dog" / "04.png").read_bytes()
    (root / "dog" / "04.png").write_bytes(whole_file[: len(whole_file) // 2])
    (root / "dog" / "05.png").write_bytes(b"")
    message = told(root)
    assert "has 3 problems" in message
    for name in ("cat/03.png", "dog/04.png", "dog/05.png"):
        assert f"{root / name}  cannot be decoded" in message


def test_pictures_of_16_bits_are_told_and_not_clipped(tmp_path: Path) -> None:
    root = classes(tmp_path)
    Image.fromarray(np.full((3, 3), 3000, np.uint16)).save(root / "cat" / "deep.png")
    assert "deep.png  must have 8 bits a channel, but has more" in told(root)


def test_a_folder_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    root = classes(tmp_path)
    (root / "empty").mkdir()
    draw(root / "loose.png", 1)
    (root / "readme.md").write_text("")
    (root / "cat" / "notes.txt").write_text("")
    message = told(root)
    assert "has 4 problems" in message
    assert "empty          is a class without pictures" in message
    assert "loose.png      is a file beside the classes' folders" in message
    assert "readme.md      is a file beside the classes' folders" in message
    assert "cat/notes.txt  is no picture by its name" in message


def test_splits_that_do_not_fit_together_are_told(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "test", names=("cat", "bird"))
    draw(tmp_path / "loose.png", 1)
    message = told(tmp_path)
    assert "test/bird  must be a class that train has, too" in message
    assert "loose.png  is a file beside" in message


def test_no_class_one_class_and_small_classes_are_told(tmp_path: Path) -> None:
    assert "(the folder)  must hold one folder a class, but holds none" in told(tmp_path)
    classes(tmp_path, names=("cat",))
    assert "there must be two at least, but got ['cat']" in told(tmp_path)
    classes(tmp_path, names=("dog",), count=2)
    assert "class 'dog'  needs 3 samples at least for every part to get one, but has 2" in told(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"mode": "RGBA"}, "mode must be one of L, RGB, but got 'RGBA'"),
        ({"image_size": 0}, "image_size must be one number"),
        ({"image_size": [3]}, "image_size must be one number"),
        ({"image_size": [3, 4, 5]}, "image_size must be one number"),
        ({"max_memory_gb": -1}, "must be at least 0"),
        ({"workers": -1}, "must be at least 0"),
        ({"val_share": 1}, "must leave training data"),
        ({"path": "nowhere"}, "there is no such file or folder"),
    ],
    ids=str,
)
def test_arguments_outside_their_range_are_told_at_birth(
    arguments: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=expected):
        ImageFolder(**{"path": str(classes(tmp_path, count=1)), **arguments})
