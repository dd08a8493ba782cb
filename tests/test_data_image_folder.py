"""Pictures in folders: which are found, how they are decoded, and that memory changes nothing of what trials see."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tuner.data import ImageFolder, TensorLoader
from tuner.data.reading.pictures import IndexBatches, Pictures, decode_all
from tuner.errors import DataError


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
    (tmp_path / "train" / "deep").mkdir()
    (tmp_path / "train" / "00.png").rename(tmp_path / "train" / "deep" / "00.png")
    assert ImageFolder(str(tmp_path)).class_names == ("car", "train")


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
    pixels = decode_all(data.listing, [place], data.asked)[0, 0]
    assert pixels.nonzero().tolist() == [[0, 1]]  # the upper left corner has come to the upper right


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
    assert [
        len(batch[1]) for batch in ImageFolder(str(tmp_path), batch_size="full", max_memory_gb=0).train_dataloader()
    ] == [14]


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
    means = [Pictures(listing, asked).mean]
    monkeypatch.setattr("tuner.data.reading.pictures.SAMPLE", 5)
    means += [Pictures(listing, asked).mean, Pictures(listing, asked).mean]
    assert torch.equal(means[1], means[2])
    assert not torch.allclose(means[0], means[1])
    train = Pictures(listing, asked).parts[0].tolist()
    first = decode_all(listing, train[:5], asked).mean(dim=(0, 2, 3))
    assert not torch.allclose(first, means[1].flatten(), atol=1e-6), "the first ones are all of one class"
    fives = (decode_all(listing, chosen, asked).mean(dim=(0, 2, 3)) for chosen in combinations(train, 5))
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


def test_a_broken_picture_is_told_when_its_batch_is_decoded(tmp_path: Path) -> None:
    root = classes(tmp_path)
    data = ImageFolder(str(root), max_memory_gb=0)
    broken = data.listing.pictures[int(data._pictures.parts[1][0])].file.path
    broken.write_text("no picture")
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        list(data.val_dataloader())
    assert str(broken) in str(caught.value)


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
