"""What a trial costs under `tuner run` beside the same configuration under a bare Lightning Trainer.

Both sides train the same configurations, in the order the study tried them, in a process of their own that has already
imported everything; start-up is not counted. The bare side builds module, data and Trainer in plain Python and calls
`fit`, with logger, checkpoints and progress bar off. Wall-clock time, because that is what one waits for: tuner brings
results to MLflow from a second process while the next trial trains. CPU seconds of both are printed, too.

    python benchmarks/overhead.py            # 3 rounds of 30 trials
    python benchmarks/overhead.py --quick    # 1 round of 5 trials
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STUDY: dict[str, Any] = {
    "model": {"class_path": "tuner.models.MLP"},
    "data": {"class_path": "tuner.data.Digits"},
    "trainer": {"max_epochs": 20, "accelerator": "cpu", "devices": 1},
    "space": "mlp",
    "search": {"sampler": "priority", "pruner": "none", "patience": None, "confirm": 0},
}


def main() -> None:
    """Measure, print the breakdown, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 5 trials")
    parser.add_argument("--bare", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        given = json.loads(Path(arguments.bare).read_text())
        bare(given["threads"], given["trials"])
        return
    rounds, trials = (1, 5) if arguments.quick else (3, 30)
    measured = [one_round(number, trials) for number in range(rounds)]
    ratio = statistics.median(r["tuner"] / r["bare"] for r in measured)
    cpu_ratio = statistics.median(r["tuner_cpu"] / r["bare_cpu"] for r in measured)
    print(f"\n{'round':>5} {'tuner s/trial':>14} {'bare s/trial':>13} {'ratio':>6} {'CPU ratio, MLflow included':>28}")
    for number, r in enumerate(measured):
        cpu = r["tuner_cpu"] / r["bare_cpu"]
        print(f"{number:>5} {r['tuner']:>14.3f} {r['bare']:>13.3f} {r['tuner'] / r['bare']:>6.3f} {cpu:>28.3f}")
    phases = {name: statistics.median(r["phases"][name] for r in measured) for name in measured[0]["phases"]}
    print("\nms a trial under tuner: " + ", ".join(f"{name} {1000 * s:.1f}" for name, s in phases.items()))
    figures = {"ratio": round(ratio, 4), "cpu_ratio": round(cpu_ratio, 4), "trials": trials, "rounds": rounds}
    print(json.dumps(figures | {"ms": {name: round(1000 * s, 2) for name, s in phases.items()}}))


def one_round(number: int, trials: int) -> dict[str, Any]:
    """One study under tuner, then the same configurations bare; seconds a trial, and tuner's by phase."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k not in ("TUNER_STORAGE", "MLFLOW_TRACKING_URI")}
        environment |= {"TUNER_HOME": folder}
        study = STUDY | {"study": "overhead", "seed_everything": number}
        study["search"] = STUDY["search"] | {"trials": trials}
        path = Path(folder) / "study.yaml"
        path.write_text(json.dumps(study))  # JSON is YAML
        command = [sys.executable, "-m", "tuner", "run", str(path), "--quiet"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        ours = read(folder)
        path.write_text(json.dumps(ours.pop("configs")))
        command = [sys.executable, __file__, "--bare", str(path)]
        told = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout
        return ours | json.loads(told.splitlines()[-1])


def read(folder: str) -> dict[str, Any]:
    """What the storage says of a study: seconds from the first trial's start to the last one's end, and by phase."""
    import dataclasses

    from tuner.home import Home
    from tuner.service.entry import open_storage

    home = dataclasses.replace(Home.from_environment(), storage=f"sqlite:///{folder}/tuner.db")
    with open_storage(home) as store:
        row = store.study("overhead")
        done = store.trials(row.id)
    diverged = [t for t in done if t.outcome.infeasible]  # the bare side does not train these: neither do they count
    span = max(t.finished for t in done) - min(t.started for t in done)
    span -= sum(t.finished - t.started for t in diverged)
    done = [t for t in done if not t.outcome.infeasible]
    names = ("ask", "build", "train", "report")
    phases = {name: statistics.fmean(t.outcome.seconds[name] for t in done) for name in names}
    total = span / len(done)
    phases["store"] = total - sum(phases.values())
    phases["track (beside the training)"] = row.facts["ledger"]["courier"] / len(done)
    configs = [dict(t.outcome.config or {}) for t in done]
    cpu = row.facts["ledger"]["worker_cpu"] + row.facts["ledger"]["courier_cpu"]
    return {
        "tuner": total,
        "tuner_cpu": cpu / len(done),
        "phases": phases,
        "configs": {"threads": row.facts["torch_threads"], "trials": configs},
    }


def bare(threads: int, configs: list[dict[str, Any]]) -> None:
    """Train the configurations with nothing but Lightning; print seconds a trial as JSON."""
    import logging
    import warnings

    import lightning as L
    import torch

    from tuner.data import Digits
    from tuner.models import MLP

    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    Digits().splits()
    began, cpu = time.perf_counter(), time.process_time()
    for config in configs:
        L.seed_everything(config["seed_everything"], verbose=False)
        module = MLP(**config["model"]["init_args"])
        data = Digits(**config["data"]["init_args"])
        trainer = L.Trainer(
            **config["trainer"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, datamodule=data)
    seconds = (time.perf_counter() - began) / len(configs)
    print(json.dumps({"bare": seconds, "bare_cpu": (time.process_time() - cpu) / len(configs)}))


if __name__ == "__main__":
    main()
