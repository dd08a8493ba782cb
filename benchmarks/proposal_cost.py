"""What a proposal costs: CPU milliseconds for a cohort of 8, after 100 and after 1,000 trials, beside Optuna's TPE.

The space has 12 parameters. Both are asked for the same; one thread; the median of several asks.

    python benchmarks/proposal_cost.py            # 100 and 1,000 trials
    python benchmarks/proposal_cost.py --quick    # 100 trials
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna

from tuner.search import PrioritySampler, search_space

COHORT = 8


def main() -> None:
    """Measure, print, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 trials only")
    quick = parser.parse_args().quick
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    full = search_space("mlp").space.document()
    space = search_space({path: {k: v for k, v in p.items() if k != "when"} for path, p in list(full.items())[:12]})
    distributions = space.distributions()
    sampler = PrioritySampler.from_space(space, seed=0)
    figures: dict[str, dict[str, float]] = {"ms": {}}
    print(
        f"{'trials':>7} {'priority ms':>12} {'TPE ms':>8}   for {COHORT} proposals of {len(distributions)} parameters"
    )
    for trials in (100,) if quick else (100, 1000):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        rng = np.random.default_rng(0)
        for _ in range(trials):
            params = {name: drawn(d, rng) for name, d in distributions.items()}
            value = abs(np.log(params["model.learning_rate"] / 0.1)) + rng.normal() * 0.1
            study.add_trial(optuna.create_trial(value=float(value), params=params, distributions=distributions))
        own = cost(partial(sampler.cohort, study, distributions, COHORT), 7)
        tpe = cost(partial(asked, study, distributions), 3)
        print(f"{trials:>7} {own:>12.0f} {tpe:>8.0f}")
        figures["ms"] |= {f"priority {trials}": round(own, 1), f"tpe {trials}": round(tpe, 1)}
    print(json.dumps(figures | {"ratio": round(tpe / own, 2)}))


def asked(study: optuna.Study, distributions: dict[str, Any]) -> None:
    """As many proposals of TPE."""
    for _ in range(COHORT):
        study.ask(distributions)


def drawn(d: Any, rng: np.random.Generator) -> Any:
    """A value of a distribution, evenly on its scale."""
    if hasattr(d, "choices"):
        return d.choices[rng.integers(len(d.choices))]
    value = float(np.exp(rng.uniform(np.log(d.low), np.log(d.high))) if d.log else rng.uniform(d.low, d.high))
    return round(value) if isinstance(d.low, int) else min(max(value, d.low), d.high)


def cost(ask: Callable[[], object], times: int) -> float:
    """CPU milliseconds of a call, the median of several."""
    spent = []
    for _ in range(times):
        started = time.process_time()
        ask()
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent)


if __name__ == "__main__":
    main()
