"""What lands in a user's environment, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tuner

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "lightning", "mlflow", "optuna", "sqlalchemy", "numpy", "ray")


def test_the_list_of_packages_is_what_lies_on_the_disk() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    moved = {folder: package for package, folder in setup["package-dir"].items()}
    found = set()
    for top in ("tuner", *moved):
        for file in sorted((ROOT / top).rglob("*.py")):
            if "own_module" in file.parts:  # a project of its own, which is not installed
                continue
            if file.is_symlink() or any(parent.is_symlink() for parent in file.parents if parent != ROOT):
                continue
            name = ".".join(file.parent.relative_to(ROOT).parts)
            found.add(name.replace(top, moved.get(top, top), 1))
    assert found == set(setup["packages"])


def test_links_make_the_same_names_work_in_a_checkout() -> None:
    for name in ("models", "search_spaces", "examples"):
        assert (ROOT / "tuner" / name).is_symlink()
        assert (ROOT / "tuner" / name).resolve() == ROOT / name


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == tuner.__version__


def test_the_public_names_are_these_and_all_load() -> None:
    assert tuner.__all__ == [
        "Best",
        "PrioritySampler",
        "SearchSpace",
        "SpecError",
        "StudyResult",
        "TunerError",
        "__version__",
        "load_best",
        "run",
        "search_space",
        "submit",
    ]
    for name in tuner.__all__:
        assert getattr(tuner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        tuner.rum  # noqa: B018


def _imported_by(code: str) -> list[str]:
    told = f"{code}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()[-1].split()


def test_importing_tuner_loads_nothing_heavy() -> None:
    assert _imported_by("import tuner") == []


def test_help_loads_nothing_heavy() -> None:
    run = "import sys\nsys.argv = ['tuner', '--help']\nfrom tuner.cli import main"
    assert _imported_by(f"{run}\ntry:\n    main()\nexcept SystemExit:\n    pass") == []


def test_no_library_is_known_outside_its_room() -> None:
    for package, room in (
        ("optuna", "search"),
        ("sqlalchemy", "storage"),
        ("mlflow", "tracking"),
        ("torch", "training"),
    ):
        for file in (ROOT / "tuner").rglob("*.py"):
            inside = file.relative_to(ROOT / "tuner").parts[0]
            allowed = {room} | ({"cohort", "models", "data", "service", "cli", "best"} if package == "torch" else set())
            text = file.read_text()
            if inside not in allowed:
                assert f"\nimport {package}" not in text, file
                assert f"\nfrom {package}" not in text, file


def test_readme_begins_with_two_one_line_commands() -> None:
    blocks = (ROOT / "README.md").read_text().split("```sh\n")[1:3]
    first, second = (block.split("```")[0].splitlines() for block in blocks)
    assert len(first) == len(second) == 1
    assert "tuner run digits-mlp" in first[0]
    assert "pytest" in second[0]


def test_readme_s_tree_names_every_module() -> None:
    tree = (ROOT / "README.md").read_text().split("## The file tree")[1]
    for folder in ("tuner", "models"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            skipped = {"__init__.py", "__main__.py", "env.py", "warm.py"}
            if file.name in skipped or "versions" in file.parts or "layers" in file.parts or file.resolve() != file:
                continue
            assert file.name in tree, f"{file} is not in README's tree"
