"""docker-compose.yml as the tests read it, with variables put in, and what the Dockerfile says of its last stage."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """What Compose makes of `${NAME}`, `${NAME:-default}` and `$$`."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found = variables.get(match["name"], "")
        return found or match["default"] or ""

    return re.sub(r"(?P<escaped>\$\$)|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", value, text)


def read_compose(**variables: str) -> dict[str, Any]:
    """The file's document."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    document: dict[str, Any] = yaml.safe_load(interpolate(text, variables))
    return document


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's last stage: (instruction, argument), continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]
    last = max(place for place, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def image_environment() -> dict[str, str]:
    """The variables that the image sets, but for PATH."""
    (said,) = (rest for word, rest in dockerfile() if word == "ENV")
    return {name: value for name, value in (each.split("=", 1) for each in said.split()) if name != "PATH"}


def entrypoint() -> list[str]:
    """The image's entrypoint."""
    (said,) = (rest for word, rest in dockerfile() if word == "ENTRYPOINT")
    found: list[str] = json.loads(said)
    return found
