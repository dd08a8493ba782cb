"""Tables of the user's: what is read, what follows from the training rows alone, and what is said of a wrong file."""

from __future__ import annotations

import datetime as dt
import math
import os
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tuner.data import Tabular
from tuner.errors import DataError


def written(folder: Path, text: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def table(folder: Path, rows: list[list[Any]], header: str = "a,b,y", name: str = "table.csv") -> str:
    return written(folder, "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", name)


def two_classes(count: int = 20) -> list[list[Any]]:
    """Rows of a number, another number and a class in words."""
    return [[i, 100 - 3 * i, "yes" if i % 2 else "no"] for i in range(count)]


def told(path: str, **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        Tabular(path, **{"target": "y", **arguments}).splits()
    return str(caught.value)


def parts(data: Tabular) -> list[tuple[torch.Tensor, torch.Tensor]]:
    splits = data.splits()
    return [splits.train, splits.val, splits.test]


# ---- what comes out ------------------------------------------------------------------------------------------------


def test_numbers_are_standardised_with_the_training_rows_alone(tmp_path: Path) -> None:
    rows = two_classes(50)
    plain = Tabular(table(tmp_path, rows), "y")
    tested = {round(v) for v in raw(plain, 2)}
    # The same table with an outlier in every test row: nothing may change for training and validation.
    for row in rows:
        if row[0] in tested:
            row[1] = 1e9
    planted = Tabular(table(tmp_path, rows, name="planted.csv"), "y")
    for before, after in zip(parts(plain)[:2], parts(planted)[:2], strict=True):
        assert torch.equal(before[0], after[0])
    assert parts(planted)[2][0][:, 1].min() > 1e6
    train = parts(plain)[0][0].double()
    assert train.mean(dim=0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert train.std(dim=0, correction=0).tolist() == pytest.approx([1, 1], abs=1e-6)


def raw(data: Tabular, part: int) -> list[float]:
    """The first column of a part before it was standardised, by solving for it: it counts the rows from 0."""
    columns = [x[:, 0] for x, _ in parts(data)]
    every = torch.cat(columns).sort().values
    step = every[1] - every[0]
    return ((columns[part] - every[0]) / step).tolist()


def test_regression_is_standardised_with_the_training_rows_alone_too(tmp_path: Path) -> None:
    rows = [[i, 100 - 3 * i, i + 0.5] for i in range(50)]
    plain = Tabular(table(tmp_path, rows), "y")
    tested = {round(v) for v in raw(plain, 2)}
    for row in rows:
        row[1] = 1e9 if row[0] in tested else row[1]
    planted = Tabular(table(tmp_path, rows, name="planted.csv"), "y")
    for before, after in zip(parts(plain)[:2], parts(planted)[:2], strict=True):
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])


def test_rows_keep_their_class_and_their_cells_together(tmp_path: Path) -> None:
    rows = two_classes(40)
    data = Tabular(table(tmp_path, rows), "y")
    assert data.class_names == ("no", "yes")
    seen = []
    for part, (x, y) in enumerate(parts(data)):
        first = [round(v) for v in raw(data, part)]
        seen += first
        assert [i % 2 for i in first] == y.tolist()  # the class of row i is its parity
        # b = 100 - 3a, and standardising turns that into exactly the opposite of a
        assert torch.allclose(x[:, 0], -x[:, 1], atol=1e-5)
    assert sorted(seen) == list(range(40))


def test_types_shapes_and_names(tmp_path: Path) -> None:
    rows = [[i, "red" if i % 3 else "blue", i % 2] for i in range(30)]
    data = Tabular(table(tmp_path, rows, "size,colour,y"), "y", batch_size=7)
    x, y = next(iter(data.train_dataloader()))
    assert (x.dtype, y.dtype, tuple(x.shape), tuple(y.shape)) == (torch.float32, torch.int64, (7, 3), (7,))
    assert (data.input_shape, data.num_classes, data.class_names) == ((3,), 2, ("0", "1"))
    assert data.feature_names == ("size", "colour=blue", "colour=red")
    assert (data.target_mean, data.target_std) == (None, None)


def test_classes_keep_their_share_in_every_split(tmp_path: Path) -> None:
    rows = [[i, i * i, "rare" if i % 5 == 0 else "often"] for i in range(200)]
    data = Tabular(table(tmp_path, rows), "y", val_share=0.25, test_share=0.15)
    counts = [torch.bincount(y).tolist() for _, y in parts(data)]
    assert counts == [[96, 24], [40, 10], [24, 6]]


def test_the_seed_alone_decides_the_split(tmp_path: Path) -> None:
    path = table(tmp_path, two_classes(60))
    torch.manual_seed(1)
    one = Tabular(path, "y", seed=1).fingerprint()
    copied = tmp_path / "elsewhere"
    copied.mkdir()
    torch.manual_seed(2)
    assert Tabular(table(copied, two_classes(60)), "y", seed=1).fingerprint() == one
    assert Tabular(path, "y", seed=2).fingerprint() != one


def test_a_constant_column_becomes_zero_however_its_mean_is_rounded(tmp_path: Path) -> None:
    for count in range(7, 40, 4):
        rows = [[0.1, i, i % 2] for i in range(count)]
        data = Tabular(table(tmp_path, rows, name=f"{count}.csv"), "y")
        assert all((x[:, 0] == 0).all() for x, _ in parts(data))


def test_one_hot_has_the_training_split_s_categories_and_zeros_for_others(tmp_path: Path) -> None:
    count = 60
    seen = Tabular(table(tmp_path, [[i, f"c{i % 3}", i % 2] for i in range(count)], "a,c,y"), "y")
    tested = {round(v) for v in raw(seen, 2)}
    rows = [[i, "new" if i in tested else f"c{i % 3}", i % 2] for i in range(count)]
    data = Tabular(table(tmp_path, rows, "a,c,y", "new.csv"), "y")
    assert data.feature_names == ("a", "c=c0", "c=c1", "c=c2")
    (train, _), (val, _), (test, _) = parts(data)
    assert (test[:, 1:] == 0).all()
    for part, x in ((0, train), (1, val)):
        chosen = [round(v) % 3 for v in raw(data, part)]
        assert x[:, 1:].tolist() == [[float(c == category) for c in range(3)] for category in chosen]


def test_a_category_that_is_alone_in_training_is_a_constant(tmp_path: Path) -> None:
    data = Tabular(table(tmp_path, [[i, "same", i % 2] for i in range(20)], "a,c,y"), "y")
    assert all((x[:, 1] == 0).all() for x, _ in parts(data))


def test_numbers_named_categorical_are_categories_by_their_text(tmp_path: Path) -> None:
    rows = [[i, ["01", "1", "10", "2"][i % 4], i % 2] for i in range(40)]
    path = table(tmp_path, rows, "a,zip,y")
    assert Tabular(path, "y").feature_names == ("a", "zip")
    assert Tabular(path, "y", categorical=["zip"]).feature_names == ("a", "zip=01", "zip=1", "zip=2", "zip=10")


def test_ignored_columns_are_left_out_whatever_they_hold(tmp_path: Path) -> None:
    rows = [[i, f"name {i}", i % 2] for i in range(40)]
    data = Tabular(table(tmp_path, rows, "a,name,y"), "y", ignore=["name"])
    assert data.feature_names == ("a",)


def test_imputing_takes_the_training_split_s_mean_which_is_zero(tmp_path: Path) -> None:
    whole = two_classes(40)
    holes = [[a, "" if a % 10 == 3 else b, y] for a, b, y in whole]
    data = Tabular(table(tmp_path, holes), "y", missing="impute")
    filled = 0
    for part, (x, _) in enumerate(parts(data)):
        for value, row in zip(x[:, 1].tolist(), raw(data, part), strict=True):
            if round(row) % 10 == 3:
                assert value == pytest.approx(0, abs=1e-6)
                filled += 1
    assert filled == 4
    train = parts(data)[0][0][:, 1]
    kept = torch.tensor([100.0 - 3 * round(r) for r in raw(data, 0) if round(r) % 10 != 3])
    deviation = math.sqrt(((kept - kept.mean()) ** 2).sum().item() / len(train))  # those filled in deviate by 0
    assert train.max().item() == pytest.approx((kept.max() - kept.mean()).item() / deviation, rel=1e-5)


def test_imputing_makes_a_missing_category_one_of_its_own(tmp_path: Path) -> None:
    rows = [[i, "" if i % 4 == 0 else "x", i % 2] for i in range(40)]
    data = Tabular(table(tmp_path, rows, "a,c,y"), "y", missing="impute")
    assert data.feature_names == ("a", "c=", "c=x")
    for part, (x, _) in enumerate(parts(data)):
        assert x[:, 1].tolist() == [float(round(row) % 4 == 0) for row in raw(data, part)]


def test_a_column_without_any_value_in_training_is_imputed_as_zero(tmp_path: Path) -> None:
    data = Tabular(table(tmp_path, [[i, "", i % 2] for i in range(20)]), "y", missing="impute")
    assert all((x[:, 1] == 0).all() for x, _ in parts(data))


def test_numbers_that_only_the_test_has_are_imputed_as_zero_elsewhere(tmp_path: Path) -> None:
    tested = {round(v) for v in raw(Tabular(table(tmp_path, two_classes(40)), "y"), 2)}
    rows = [[a, a + 3 if a in tested else "", y] for a, _, y in two_classes(40)]
    (train, _), (val, _), (test, _) = parts(Tabular(table(tmp_path, rows), "y", missing="impute"))
    assert (train[:, 1] == 0).all()
    assert (val[:, 1] == 0).all()
    assert (test[:, 1] == 0).all(), "a constant of training, which cannot tell what other values mean"


# ---- which task ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (["no", "yes"], ("no", "yes")),
        (["True", "False"], ("False", "True")),
        ([3, 1, 10], ("1", "3", "10")),
        (["1.0", "0.0"], ("0", "1")),
        ([-1, 1], ("-1", "1")),
        ([0.5, 1.5], None),
        ([1, 2.25], None),
        (list(range(20)), tuple(map(str, range(20)))),
        (list(range(21)), None),
    ],
    ids=str,
)
def test_auto_takes_text_and_few_whole_numbers_for_classes(
    targets: list[Any], classes: tuple[str, ...] | None, tmp_path: Path
) -> None:
    rows = [[i, 2 * i, targets[i % len(targets)]] for i in range(210)]
    data = Tabular(table(tmp_path, rows), "y")
    assert data.class_names == classes
    assert data.num_classes == (None if classes is None else len(classes))


def test_whole_numbers_that_hardly_repeat_are_regression(tmp_path: Path) -> None:
    assert Tabular(table(tmp_path, [[i, i, i] for i in range(15)]), "y").num_classes is None


def test_the_task_can_be_said(tmp_path: Path) -> None:
    path = table(tmp_path, [[i, i, [1, 2, 5][i % 3]] for i in range(60)])
    number = Tabular(path, "y", task="regression")
    y = parts(number)[0][1]
    assert (number.num_classes, number.class_names, y.dtype) == (None, None, torch.float64)
    halves = table(tmp_path, [[i, i, [0.5, 1, 1.5][i % 3]] for i in range(60)], name="halves.csv")
    assert Tabular(halves, "y").num_classes is None
    assert Tabular(halves, "y", task="classification").class_names == ("0.5", "1", "1.5")


def test_a_regression_target_keeps_its_units_and_its_training_statistics(tmp_path: Path) -> None:
    rows = [[i, i, 1000 + i / 4] for i in range(101)]
    data = Tabular(table(tmp_path, rows), "y")
    every = torch.cat([y for _, y in parts(data)])
    assert sorted(every.tolist()) == [1000 + i / 4 for i in range(101)]
    train = parts(data)[0][1].tolist()
    mean = sum(train) / len(train)
    assert data.target_mean == pytest.approx(mean)
    assert data.target_std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in train) / len(train)))


@pytest.mark.parametrize("offset", [0, 10**8, 1_700_000_000])
def test_a_regression_target_s_offset_costs_it_nothing(offset: int, tmp_path: Path) -> None:
    rows = [[i, i, offset + i / 8] for i in range(101)]
    data = Tabular(table(tmp_path, rows), "y", task="regression")
    near = Tabular(table(tmp_path, [[a, b, y - offset] for a, b, y in rows], name="near.csv"), "y", task="regression")
    for (_, y), (_, expected) in zip(parts(data), parts(near), strict=True):
        assert torch.equal(y - offset, expected)
    assert data.target_mean == pytest.approx(near.target_mean + offset, abs=1e-6)
    assert data.target_std == pytest.approx(near.target_std, rel=1e-6)
    (_, y) = next(iter(data.val_dataloader()))
    assert y.dtype == torch.float64


# ---- how it is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_seen_in_the_header(delimiter: str, tmp_path: Path) -> None:
    text = table(tmp_path, two_classes())
    expected = Tabular(text, "y").fingerprint()
    other = written(tmp_path, Path(text).read_text().replace(",", delimiter), "other.csv")
    assert Tabular(other, "y").fingerprint() == expected


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    text = "a:b:y\n" + "".join(f"{i}:{i}:{i % 2}\n" for i in range(20))
    assert Tabular(written(tmp_path, text), "y", delimiter=":").feature_names == ("a", "b")


def test_decimal_commas_are_read_when_said_and_told_when_not(tmp_path: Path) -> None:
    comma = written(tmp_path, "a;b;y\n" + "".join(f"{i},5;{i};{i % 2}\n" for i in range(20)))
    point = written(tmp_path, "a;b;y\n" + "".join(f"{i}.5;{i};{i % 2}\n" for i in range(20)), "point.csv")
    assert Tabular(comma, "y", decimal=",").fingerprint() == Tabular(point, "y").fingerprint()
    assert "must be a number, as most cells of the column are, but got '0,5'" in told(comma)
    assert "set decimal: ','" in told(comma)
    assert "but got '0.5'" in told(point, decimal=",")


def grouped(folder: Path, cells: list[str], **arguments: Any) -> str:
    rows = [f"{cell};{i};{i % 2}" for i, cell in enumerate(cells)]
    return told(written(folder, "\n".join(["a;b;y", *rows])), **arguments)


def test_separators_between_thousands_are_told_to_be_removed(tmp_path: Path) -> None:
    plain = [str(100 + i) for i in range(20)]
    message = grouped(tmp_path, ["1,234", *plain])
    assert "but got '1,234'. Write it without thousands separators: 1234." in message
    assert "If ',' is the decimal mark, set decimal: ','." in message
    message = grouped(tmp_path, [f"1,{i:03},000" for i in range(20)])
    assert "must be a number, as most cells of the column are, but got '1,000,000'." in message
    assert "Write it without thousands separators: 1000000." in message
    assert "decimal" not in message
    assert "separators: -12345.5." in grouped(tmp_path, ["-12,345.5", *plain])
    assert "separators: 1234,5." in grouped(tmp_path, ["1.234,5", *plain], decimal=",")
    # a mark that stands otherwise somewhere in the column is a decimal mark
    for other in ("1,5", "0,125", "1234,567"):
        message = grouped(tmp_path, ["1,234", other, *plain])
        assert "thousands" not in message
        assert message.count("set decimal: ','") == 2


def test_quotes_spaces_blank_lines_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    plain = written(tmp_path, "a,b,y\n" + "".join(f"{i},w{i % 2},{i % 2}\n" for i in range(20)))
    lines = ['"a", b ,y', "", *(f'{i} , "w{i % 2}",{i % 2}' for i in range(20)), "", " "]
    dressed = tmp_path / "dressed.csv"
    dressed.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert Tabular(str(dressed), "y").fingerprint() == Tabular(plain, "y").fingerprint()


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    rows = [(i, i / 3, f"w{i % 3}", i % 2 == 0, None if i == 5 else i * 2, i % 4) for i in range(60)]
    names = ["i", "f", "text", "flag", "hole", "y"]
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    csv = written(tmp_path, f"{','.join(names)}\n{text}\n")
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({n: [row[k] for row in rows] for k, n in enumerate(names)}), path)
    one, other = (Tabular(p, "y", missing="impute") for p in (csv, str(path)))
    assert one.fingerprint() == other.fingerprint()
    assert one.feature_names == other.feature_names
    assert one.class_names == other.class_names == ("0", "1", "2", "3")


def test_parquet_places_are_rows_and_its_index_is_no_column(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0, math.nan, math.inf] * 5, "y": [0, 1] * 10}, index=range(7, 47, 2))
    frame.index = frame.index.map(str)
    frame.to_parquet(tmp_path / "t.parquet")
    message = told(str(tmp_path / "t.parquet"))
    assert "row 3, column 'a'   is missing" in message
    assert "row 4, column 'a'   must be finite" in message
    assert "__index" not in message


def test_decimals_are_numbers_and_days_are_text(tmp_path: Path) -> None:
    day = dt.date(2024, 1, 1)
    columns = {
        "price": [Decimal(i) / 4 for i in range(20)],
        "day": [day + dt.timedelta(days=i % 2) for i in range(20)],
        "y": [i % 2 for i in range(20)],
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = Tabular(str(tmp_path / "t.parquet"), "y")
    assert data.feature_names == ("price", "day=2024-01-01", "day=2024-01-02")


# ---- what is wrong with the file -----------------------------------------------------------------------------------


def test_a_stray_cell_in_a_column_of_numbers_is_told_with_its_line(tmp_path: Path) -> None:
    rows = two_classes()
    rows[3][0], rows[9][1] = '"12,5"', "n/a"
    path = table(tmp_path, rows)
    message = told(path)
    assert message.startswith(f"{path} has 2 problems:")
    assert "line 5, column 'a'   must be a number, as most cells of the column are, but got '12,5'. Write" in message
    assert "line 11, column 'b'  must be a number, as most cells of the column are, but got 'n/a'. Correct" in message
    assert "name the column in categorical" in message


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    text = 'a,b,y\n\n1,"two\nlines",0\n' + "2,w,1\n" * 9 + "\n\nx,w,1\n"
    assert "line 16, column 'a'  must be a number" in told(written(tmp_path, text))
    assert text.splitlines()[15] == "x,w,1"


@pytest.mark.parametrize("seed", range(5))
def test_wherever_stray_cells_are_they_are_found(seed: int, tmp_path: Path) -> None:
    drawn = random.Random(seed)  # noqa: S311
    rows = two_classes(50)
    wrong = sorted(drawn.sample(range(50), 6))
    for row in wrong:
        rows[row][drawn.randrange(2)] = drawn.choice(["?", "1_0", "12abc", "--", "1,5"]).replace(",", "،")
    with pytest.raises(DataError) as caught:
        Tabular(table(tmp_path, rows), "y").splits()
    assert [problem.path.split(",")[0] for problem in caught.value.problems] == [f"line {row + 2}" for row in wrong]


def test_ten_problems_are_told_and_the_others_counted(tmp_path: Path) -> None:
    rows = [[i if i % 3 else "?", i, i % 2] for i in range(45)]
    message = told(table(tmp_path, rows))
    assert "has 15 problems" in message
    assert message.count("must be a number") == 10
    assert message.endswith("  … and 5 more")


def test_all_problems_are_carried(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        Tabular(table(tmp_path, [[i if i % 3 else "?", i, i % 2] for i in range(45)]), "y").splits()
    assert len(caught.value.problems) == 15
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "  "])
def test_a_missing_cell_is_an_error_with_its_next_step(cell: str, tmp_path: Path) -> None:
    rows = two_classes()
    rows[0][0] = cell
    assert "line 2, column 'a'  is missing. Fill it in, or set missing: impute." in told(table(tmp_path, rows))


def test_a_missing_text_is_an_error_too(tmp_path: Path) -> None:
    rows = [["u" if i != 4 else "", i, i % 2] for i in range(20)]
    assert "line 6, column 'a'  is missing" in told(table(tmp_path, rows))


@pytest.mark.parametrize("missing", ["error", "impute"])
@pytest.mark.parametrize("task", ["auto", "classification", "regression"])
def test_a_missing_target_is_always_an_error(missing: str, task: str, tmp_path: Path) -> None:
    rows = [[i, i, i % 2] for i in range(20)]
    rows[7][2] = ""
    assert "line 9, column 'y'  is missing. Fill it in, or remove" in told(
        table(tmp_path, rows), missing=missing, task=task
    )


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999"])
def test_infinity_is_told(cell: str, tmp_path: Path) -> None:
    rows = two_classes()
    rows[1][1] = cell
    assert f"line 3, column 'b'  must be finite, but got '{cell}'" in told(table(tmp_path, rows))


def test_a_target_in_words_is_no_regression(tmp_path: Path) -> None:
    message = told(table(tmp_path, two_classes()), task="regression")
    assert "line 2, column 'y'   must be a number for regression, but got 'no'" in message
    assert "set task: classification" in message


def test_a_stray_target_is_told(tmp_path: Path) -> None:
    rows = [[i, i, "many" if i == 3 else i / 2] for i in range(20)]
    assert "line 5, column 'y'  must be a number, as most cells of the column are, but got 'many'" in told(
        table(tmp_path, rows)
    )


def test_a_text_that_tells_rows_apart_is_no_category_unless_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path, [[i, f"name {i}", i % 2] for i in range(40)])
    assert "column 'b'  is text with 40 different values in 40 rows. Name it in ignore" in told(path)
    assert len(Tabular(path, "y", categorical=["b"]).feature_names or ()) == 1 + 24  # those of the training split
    wide = table(tmp_path, [[i, f"name {i % 1001}", i % 2] for i in range(3003)], name="wide.csv")
    assert "1001 different values in 3003 rows" in told(wide)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"target": "yy"}, "target  must name a column of the file, but got 'yy'. Did you mean 'y'?"),
        ({"target": "zzz"}, "target  must name a column of the file, but got 'zzz'. It has: 'age', 'size', 'y'."),
        ({"ignore": ["agee"]}, "ignore  must name a column of the file, but got 'agee'. Did you mean 'age'?"),
        ({"categorical": ["siz"]}, "categorical  must name a column of the file, but got 'siz'. Did you mean 'size'?"),
        ({"ignore": ["y"]}, "ignore  must not name the target 'y'"),
        ({"categorical": ["y"]}, "categorical  must not name the target 'y'"),
        ({"categorical": ["age"], "ignore": ["age"]}, "categorical  must not name 'age', which is ignored"),
        ({"ignore": ["age", "size"]}, "must have columns beside the target"),
    ],
    ids=str,
)
def test_columns_that_are_not_there_or_named_twice_are_told(
    arguments: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert expected in told(table(tmp_path, two_classes(), "age,size,y"), **arguments)


def test_all_wrong_columns_are_told_at_once(tmp_path: Path) -> None:
    message = told(table(tmp_path, two_classes(), "age,size,y"), target="why", ignore=["agee"], categorical=["siz"])
    assert "has 3 problems" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "(the file)  must hold a header and rows, but is empty"),
        ("\n \n", "(the file)  must hold a header and rows, but is empty"),
        ("a,b,y\n", "(the file)  has a header but no rows"),
        ("a,a,y\n1,2,3\n", "column 'a'  names more than one column"),
        (",a,y\n1,2,3\n", "(the header)  has no name in column 1"),
        ("a,b,y\n1,2,0\n1,2\n1,2,0\n1,2,0,4\n", "line 3  must have 3 cells as the header has, but has 2."),
        ("a,b,y\n1,2,0\n1,2\n1,2,0\n1,2,0,4\n", "line 5  must have 3 cells as the header has, but has 4."),
        ('a,b,y\n1,2,0\n1,"2,0\n1,2,0\n', "line 3  cannot be read as CSV"),
    ],
    ids=["empty", "blank", "header", "twice", "unnamed", "short", "long", "quote"],
)
def test_a_file_that_is_no_table_is_told(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in told(written(tmp_path, text))


def test_an_unnamed_column_can_be_ignored(tmp_path: Path) -> None:
    path = table(tmp_path, two_classes(), ",b,y")
    assert Tabular(path, "y", ignore=[""]).feature_names == ("b",)


def test_a_file_in_another_encoding_is_told_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b,y\n1,2,0\n" + "1,Käse,1\n".encode("latin-1"))
    message = told(str(path))
    assert "line 3  must be UTF-8 text, but byte 15 is 0xe4" in message
    assert path.read_bytes()[15] == 0xE4


def test_what_is_called_parquet_and_is_not_is_told(tmp_path: Path) -> None:
    assert "(the file)  cannot be read as Parquet" in told(table(tmp_path, two_classes(), name="t.parquet"))


def test_lists_in_parquet_are_told(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": [[1], [2]], "y": [0, 1]}), tmp_path / "t.parquet")
    assert "column 'a'  must hold numbers or text, but holds list" in told(str(tmp_path / "t.parquet"))


def test_one_class_is_too_few(tmp_path: Path) -> None:
    assert "there must be two at least, but got ['a']" in told(table(tmp_path, [[i, i, "a"] for i in range(9)]))


def test_a_class_with_too_few_rows_is_told_with_how_many_it_needs(tmp_path: Path) -> None:
    rows = [[i, i, "rare" if i < 2 else "often"] for i in range(30)]
    message = told(table(tmp_path, rows))
    assert "class 'rare'  needs 3 samples at least for every part to get one, but has 2" in message
    assert "'often'" not in message
    rows[2][2] = "rare"
    assert [len(y) for _, y in parts(Tabular(table(tmp_path, rows, name="three.csv"), "y"))] == [17 + 1, 5 + 1, 5 + 1]


def test_a_regression_target_that_is_always_the_same_is_told(tmp_path: Path) -> None:
    assert "must vary among the training samples, but is always 2.5" in told(
        table(tmp_path, [[i, i, 2.5] for i in range(30)])
    )


def test_too_few_rows_for_regression_are_told(tmp_path: Path) -> None:
    assert "there must be samples for every part, but got 2" in told(table(tmp_path, [[1, 2, 0.5], [2, 3, 1.5]]))


# ---- where the file is, and when it is read ------------------------------------------------------------------------


def test_a_file_must_exist_when_the_data_module_is_made(tmp_path: Path) -> None:
    table(tmp_path, two_classes(), name="iris.csv")
    with pytest.raises(DataError, match=r"there is no such file or folder in .* Did you mean 'iris.csv'\?"):
        Tabular(str(tmp_path / "irsi.csv"), "y")
    with pytest.raises(DataError, match="must be a file, but it is a folder"):
        Tabular(str(tmp_path), "y")


def test_a_file_is_not_read_when_the_data_module_is_made(tmp_path: Path) -> None:
    assert Tabular(written(tmp_path, "no table"), "y").batch_size == 32


def test_a_relative_path_is_the_current_folder_s_and_then_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, shipped = tmp_path / "here", tmp_path / "shipped"
    here.mkdir()
    shipped.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tuner.data.reading.files.resources.files", {"tuner.examples": shipped}.__getitem__)
    table(shipped, two_classes())
    assert Tabular("table.csv", "y").file == shipped / "table.csv"
    table(here, two_classes())
    assert Tabular("table.csv", "y").file == here / "table.csv"
    monkeypatch.chdir(tmp_path)
    assert Tabular("table.csv", "y").splits().train[0].shape[1] == 2


def test_the_shipped_files_are_those_of_the_examples() -> None:
    shipped = Tabular("digits-mlp.yaml", "y").file
    assert shipped.name == "digits-mlp.yaml"
    assert "tuner" in shipped.parts or "examples" in shipped.parts


def test_a_table_is_prepared_once_until_its_file_changes(tmp_path: Path) -> None:
    path = table(tmp_path, two_classes())
    first = Tabular(path, "y").splits()
    assert Tabular(path, "y", batch_size=3).splits() is first
    rows = two_classes()
    rows[0][0] = 7  # as long as before
    size = Path(path).stat().st_size
    table(tmp_path, rows)
    os.utime(path, ns=(1, 1))
    assert Path(path).stat().st_size == size
    again = Tabular(path, "y").splits()
    assert again.fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"task": "regresion"}, "Did you mean 'regression'"),
        ({"missing": "drop"}, "missing must be one of error, impute"),
        ({"decimal": ";"}, "decimal must be one of"),
        ({"delimiter": "::"}, "delimiter must be one character"),
        ({"val_share": 0.9, "test_share": 0.1}, "must leave training data"),
        ({"batch_size": 0}, "at least 1"),
    ],
    ids=str,
)
def test_arguments_outside_their_range_are_told_at_birth(
    arguments: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=expected):
        Tabular(table(tmp_path, two_classes()), "y", **arguments)
