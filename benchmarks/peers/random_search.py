"""Random search over a bare torch loop: what needs nothing but torch."""

from __future__ import annotations

import math
import random
from itertools import count
from typing import Any

from digits_mlp import Task


def draw(asked: dict[str, Any], uniform: random.Random) -> Any:
    """A value on the parameter's scale."""
    if asked["kind"] == "choice":
        return uniform.choice(asked["values"])
    low, high = asked["low"], asked["high"]
    if asked["scale"] == "log_complement":
        return 1 - math.exp(uniform.uniform(math.log(1 - high), math.log(1 - low)))
    value = math.exp(uniform.uniform(math.log(low), math.log(high))) if asked["scale"] == "log" else None
    value = uniform.uniform(low, high) if value is None else value
    return round(value) if asked["kind"] == "int" else value


def main() -> None:
    """Search until the target is reached."""
    task = Task.asked()
    uniform = random.Random(task.seed)  # noqa: S311 - nothing secret
    for trial in count():
        config = {name: draw(asked, uniform) for name, asked in task.space.items()}
        for _ in task.train(trial, config):
            pass


if __name__ == "__main__":
    main()
