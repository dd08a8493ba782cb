"""What a trial costs under `tuner run` beside the same configuration under a bare Lightning Trainer.

Both sides train the same configurations, in the order the study tried them, in a process of their own that has already
imported everything; start-up is not counted. The bare side builds module, data and Trainer in plain Python and calls
`fit`, with logger, checkpoints and progress bar off. Wall-clock time, because that is what one waits for: tuner brings
results to MLflow from a second process while the next trial trains. CPU seconds of both are printed, too.

`--step` is where the microseconds of a training step go, in the bare loop, under the Trainer, in the lean loop and in a
cohort, of an MLP of 32 units on batches of 16: CPU time of this process, on one thread. The whole is timed without its
parts being timed, and then once more with them, which gives their shares; `rest` is what no part explains, and the
timers' own microsecond a part. Shown is the round in which the whole took least.

    python benchmarks/overhead.py            # 3 rounds of 30 trials
    python benchmarks/overhead.py --quick    # 1 round of 5 trials
    python benchmarks/overhead.py --step     # 5 rounds; with --quick one
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

STUDY: dict[str, Any] = {
    "model": {"class_path": "tuner.models.MLP"},
    "data": {"class_path": "tuner.data.Digits"},
    "trainer": {"max_epochs": 20, "accelerator": "cpu", "devices": 1},
    "space": "mlp",
    "search": {"training": "lightning", "sampler": "priority", "pruner": "none", "patience": None, "confirm": 0},
}


def main() -> None:
    """Measure, print the breakdown, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 5 trials")
    parser.add_argument("--step", action="store_true", help="where the microseconds of a step go")
    parser.add_argument("--bare", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        given = json.loads(Path(arguments.bare).read_text())
        bare(given["threads"], given["trials"])
        return
    if arguments.step:
        steps(rounds=1 if arguments.quick else 5, epochs=2 if arguments.quick else 5)
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


# ---- where the microseconds of a step go ---------------------------------------------------------------------------

PARTS = ("data", "training_step", "recorded step", "step not recorded", "log", "backward", "optimiser")
WARM = 2
"""Epochs before the clock starts: in the first one a cohort is checked and recorded."""

Place = tuple[Any, str]
"""An owner and the name of its function."""


class Parts:
    """CPU seconds of this process by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside = [0.0]

    def timed(self, name: str | Callable[[Any], str], function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed; a name may depend on what it returns. Of an iterator, what each next one takes."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            began, answer = time.process_time(), None
            try:
                answer = function(*args, **kwargs)
            finally:
                took = time.process_time() - began
                self.seconds[name if isinstance(name, str) else name(answer)] += took - self._inside.pop()
                self._inside[-1] += took
            return answer

        @functools.wraps(function)
        def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            given = function(*args, **kwargs)
            following = self.timed(name, lambda: next(given, given))
            while (answer := following()) is not given:
                yield answer

        return iterate if inspect.isgeneratorfunction(function) else call

    def after(self, calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as the whole; what comes before so many calls does not count."""
        timed, called = self.timed("whole", function), 0

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal called
            if called == calls:
                self.seconds.clear()
            called += 1
            return timed(*args, **kwargs)

        return call


class Steps:
    """The loops, each on the same trial or on trials that differ in their numbers."""

    def __init__(self, epochs: int) -> None:
        from cohort import WORKLOADS

        from tuner.space import read_space
        from tuner.spec import trial_config

        this = WORKLOADS["mlp-small"]
        self.epochs, space = WARM + epochs, read_space(dict(this.space))[0]
        assert space is not None
        self.space = space
        base = {
            "model": {"class_path": f"tuner.models.{this.model}", "init_args": dict(this.arguments)},
            "data": {"class_path": f"tuner.data.{this.data}", "init_args": dict(this.data_arguments)},
            "trainer": {"max_epochs": self.epochs, "accelerator": "cpu", "devices": 1},
        }
        given = space.default_params()
        rates = [0.02 * 1.1**k for k in range(16)]
        self.configs = [trial_config(base, given | {"model.learning_rate": r}, k) for k, r in enumerate(rates)]

    def bare(self, parts: Parts, split: bool) -> None:
        """Plain torch, nothing logged."""
        from torch.nn import functional as F

        from tuner.data import Digits
        from tuner.models import MLP

        network, data = MLP(**self.configs[0]["model"]["init_args"]), Digits(**self.configs[0]["data"]["init_args"])
        network.take_shapes(data)
        configured: Any = network.configure_optimizers()
        (optimizer,), _ = configured
        forward, backward, descend = (
            lambda x, y: F.cross_entropy(network(x), y),
            lambda loss: loss.backward(),
            lambda: (optimizer.step(), optimizer.zero_grad()),
        )
        draw: Callable[..., Any] = next
        if split:
            forward, backward = parts.timed("training_step", forward), parts.timed("backward", backward)
            descend, draw = parts.timed("optimiser", descend), parts.timed("data", draw)

        def epoch() -> None:
            batches = iter(data.train_dataloader())
            while (batch := draw(batches, None)) is not None:
                backward(forward(*batch))
                descend()

        timed = parts.after(WARM, epoch)
        for _ in range(self.epochs):
            timed()

    def alone(self, mode: Any) -> str:
        """By the lean loop or the Trainer."""
        from tuner.training import SingleTraining
        from tuner.trial import Objective, Verdict

        single = SingleTraining(self.configs[0], Objective("val_loss"), mode=mode)
        return str(single.train(self.configs[0], lambda _: Verdict.GO_ON).trained)

    def together(self, count: int) -> str:
        """In a cohort."""
        from tuner.cohort import CohortTraining, Job
        from tuner.training import SingleTraining
        from tuner.trial import Objective, Verdict

        single = SingleTraining(self.configs[0], Objective("val_loss"))
        training = CohortTraining(single, self.space, "cohort", count)
        jobs = [Job(number, config) for number, config in enumerate(self.configs[:count])]
        done = list(training.train(jobs, lambda said: [Verdict.GO_ON] * len(said)))
        return str(done[0][1].trained)


def steps(rounds: int, epochs: int) -> None:
    """Print microseconds of a step by part, for each loop; end with a line of JSON."""
    import logging
    import warnings

    import torch

    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    loops, of_step, found = Steps(epochs), step_places(), {}
    for _ in range(rounds):
        for loop in of_step:
            found.setdefault(loop, []).append(one_loop(loops, loop, *of_step[loop], epochs))
    us = {loop: min(measured, key=lambda r: r["whole"]) for loop, measured in found.items()}
    print(f"\nmicroseconds of a step and a trial, in the least disturbed of {rounds} round(s)\n")
    print(f"{'':<18}" + "".join(f"{loop:>14}" for loop in us))
    for part in (*PARTS, "rest", "whole"):
        cells = (f"{us[loop][part]:.1f}" if part in us[loop] else "" for loop in us)
        print(f"{part:<18}" + "".join(f"{cell:>14}" for cell in cells))
    figures: dict[str, Any] = {f"us {loop}": round(parts["whole"], 1) for loop, parts in us.items()}
    print(
        json.dumps(figures | {"us": {loop: {p: round(v, 1) for p, v in parts.items()} for loop, parts in us.items()}})
    )


def step_places() -> dict[str, tuple[Place | None, Mapping[Any, Sequence[Place]]]]:
    """By loop, the function that is the whole of an epoch's steps or of one step, and those of its parts."""
    import lightning as L
    import torch
    from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    import tuner.cohort.cohort
    import tuner.training.lean
    from tuner.cohort.cohort import Cohort
    from tuner.cohort.descent import Together
    from tuner.cohort.step import Step
    from tuner.models.classifier import Classifier
    from tuner.training.hooks import Hooks
    from tuner.training.lean import Lean
    from tuner.training.optimisation import Optimisation

    alone: dict[Any, list[Place]] = {
        "training_step": [(Classifier, "training_step")],
        "log": [(L.LightningModule, "log_dict")],
        "backward": [(torch.Tensor, "backward")],
        "optimiser": [(torch.optim.SGD, "step")],
    }
    lean = alone | {
        "data": [(tuner.training.lean, "taken"), (Hooks, "transferred")],
        "optimiser": [*alone["optimiser"], (Optimisation, "_zero_gradients")],
    }
    together: dict[Any, list[Place]] = {
        "data": [(tuner.cohort.cohort, "batches_of")],
        _recorded: [(Step, "__call__")],
        "optimiser": [(Together, "step"), (Cohort, "_clipped")],
        "log": [(Cohort, "_record")],
    }
    return {
        "bare": (None, {}),
        "lightning": ((_TrainingEpochLoop, "advance"), alone | {"data": [(_PrefetchDataFetcher, "__next__")]}),
        "lean": ((Lean, "_train_batches"), lean),
        "cohort of 8": ((Cohort, "_train_batches"), together),
        "cohort of 16": ((Cohort, "_train_batches"), together),
    }


def _recorded(out: Any) -> str:
    return "recorded step" if out is not None and out.replayed else "step not recorded"


def one_loop(
    loops: Steps, loop: str, whole: Place | None, places: Mapping[Any, Sequence[Place]], epochs: int
) -> dict[str, float]:
    """Microseconds of a step and a trial by part: once for the whole, once for the parts."""
    from tuner.data import Digits

    count = len(Digits(**loops.configs[0]["data"]["init_args"]).train_dataloader())
    trials = int(loop.rpartition(" ")[2]) if loop.startswith("cohort") else 1
    measured: list[Parts] = []
    for split in (False, True):
        parts = Parts()
        with ExitStack() as patched:
            for name, owned in places.items() if split else ():
                for owner, attribute in owned:
                    patched.enter_context(
                        mock.patch.object(owner, attribute, parts.timed(name, getattr(owner, attribute)))
                    )
            if whole is not None:
                skipped = WARM * (count if loop == "lightning" else 1)
                patched.enter_context(mock.patch.object(*whole, parts.after(skipped, getattr(*whole))))
            if loop == "bare":
                loops.bare(parts, split)
            elif (how := loops.together(trials) if trials > 1 else loops.alone(loop)) != loop:
                raise RuntimeError(f"{loop} was asked for, but it was {how}")
        measured.append(parts)
    total = 1e6 * measured[0].seconds["whole"] / (count * epochs * trials)
    shares = measured[1].seconds
    us = {"rest" if part == "whole" else part: total * s / shares.total() for part, s in shares.items()}
    return us | {"whole": total}


if __name__ == "__main__":
    main()
