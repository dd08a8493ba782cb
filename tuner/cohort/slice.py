"""One trial of a cohort: a lean loop of its own, of which the steps are made together with those of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from tuner.cohort.draws import Draws
from tuner.cohort.errors import NotFusable
from tuner.cohort.job import Job
from tuner.models import Network
from tuner.training import Begun, known_epochs, trained_by
from tuner.training.borrowed import extract_batch_size
from tuner.training.hooks import replaced
from tuner.training.snapshot import snapshot_of
from tuner.trial import Verdict


class Slice:
    """A trial among others.

    Args:
        job: the trial.
        begun: its module, data and lean loop.

    Attributes:
        draws: the random states that it draws from; what it draws is what it would draw alone.
        error: what its own code has raised; then it ends, and the others go on.
        verdict: the answer to its latest report.
        seconds: its share of the time that the cohort has trained.
        gone: whether it has left the cohort; its place may be empty.
        refused: whether it was never in, because it differs in what all must agree on.
    """

    def __init__(self, job: Job, begun: Begun) -> None:
        self.job, self.begun = job, begun
        self.lean, self.module, self.observer = begun.lean, begun.module, begun.observer
        self.draws = Draws.now()
        self.error: BaseException | None = None
        self.verdict = Verdict.GO_ON
        self.seconds = self.observer.earlier_seconds
        self.gone = self.refused = False
        self.observer.on_report = lambda _: self.verdict  # the cohort has asked by then

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run this trial's own code, with its own random states; what it raises ends this trial only."""
        with self.draws.going_on(), self.answerable():
            yield

    @contextmanager
    def answerable(self) -> Iterator[None]:
        """What is raised inside ends this trial only. For what draws nothing; random states take their time."""
        if self.error is not None:
            raise RuntimeError("a slice that has failed must not go on")
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit, NotFusable):
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code runs here and may raise anything
            self.error = error

    @property
    def healthy(self) -> bool:
        """Whether it is being trained and has raised nothing."""
        return not self.gone and self.error is None

    @property
    def reported(self) -> int:
        """The latest epoch that was reported, or 0."""
        return 0 if self.observer.last is None else self.observer.last.epoch

    @property
    def has_reported(self) -> bool:
        """Whether it has reported an epoch since it was begun."""
        return self.reported > known_epochs(self.job.snapshot)

    def snapshot(self, trained: str, optimizer: Mapping[str, Any]) -> dict[str, Any]:
        """Where it is, between two epochs; a lean loop can go on from there.

        Args:
            trained: how it was trained, in words.
            optimizer: the state of its optimiser.
        """
        told = trained_by(trained, self.job.snapshot)
        taken = snapshot_of(self.lean, self.begun.fresh, told)
        taken |= {"optimizer": optimizer, "random": self.draws.as_plain()}
        taken["observer"]["seconds"] = self.seconds  # its share; the observer knows of no others
        weights = taken["checkpoint"]["state_dict"]
        for name, value in weights.items():  # a view of the cohort's rows would be written with all of them
            weights[name] = value.clone() if isinstance(value, Tensor) else value
        return taken

    @property
    def optimizer(self) -> Any:
        """Its own optimiser."""
        return self.lean.optimisation.optimizer

    @property
    def over(self) -> bool:
        """Whether it trains no more epochs."""
        return self.error is not None or self.verdict is Verdict.GIVE_BACK or self.lean.done()

    def check(self) -> None:
        """Check that its steps are nothing but what a cohort does.

        Raises:
            NotFusable: it has hooks or looks at metrics at every batch, or trains on parts of its data, or not at all.
        """
        if self.lean.done():
            raise NotFusable("it trains no epoch")
        settings = self.lean.settings
        self.lean.hooks.look()
        self.check_hooks()
        if settings.max_steps != -1:
            raise NotFusable("trainer.max_steps is set")
        if any(config.interval == "step" and config.reduce_on_plateau for config in self.lean.optimisation.schedules):
            raise NotFusable("a schedule of its follows a metric from step to step")
        if settings.val_check_interval != 1.0:
            raise NotFusable("trainer.val_check_interval is set")

    def check_hooks(self) -> None:
        """Check that its hooks, which may change from epoch to epoch, are none that a cohort leaves out.

        Raises:
            NotFusable: it has some.
        """
        own = set(self.lean.hooks.own)
        if isinstance(self.module, Network) and not replaced(self.module, Network, "configure_gradient_clipping"):
            own.discard("configure_gradient_clipping")
        own -= _VALIDATION
        if own:
            raise NotFusable(f"it has a hook at every batch, {min(own)}")
        if self.lean.hooks.brings_batches:
            raise NotFusable("it has a hook that brings batches to the device")

    def check_validation(self) -> None:
        """Check that its validation is nothing but what a cohort does.

        Raises:
            NotFusable: it has several loaders, or hooks at every batch.
        """
        if own := _VALIDATION & self.lean.hooks.own:
            raise NotFusable(f"it has a hook at every batch, {min(own)}")
        if len(self.lean.validation.loaders) > 1:
            raise NotFusable("it validates on several loaders")

    @property
    def epochs_left(self) -> int:
        """How many epochs it trains at most from now on."""
        limit = self.lean.settings.max_epochs
        return 1000 if limit == -1 else limit - self.lean.processed

    @property
    def steps_left(self) -> int:
        """How many steps it makes at most from now on."""
        return self.epochs_left * int(self.lean.trainer.num_training_batches)

    def norms(self) -> list[float]:
        """To which norms its gradients are clipped, one after the other; infinity is none."""
        settings = self.lean.settings
        by_norm = settings.gradient_clip_algorithm is None or settings.gradient_clip_algorithm.value == "norm"
        asked = settings.gradient_clip_val if by_norm else None
        own = self.module.hyperparameter("clip_norm") if isinstance(self.module, Network) else None
        return [float("inf") if not norm else float(norm) for norm in (asked, own)]

    def bound(self) -> float:
        """To which absolute value its gradients are clipped; infinity is none."""
        settings = self.lean.settings
        by_value = settings.gradient_clip_algorithm is not None and settings.gradient_clip_algorithm.value == "value"
        return float(settings.gradient_clip_val) if by_value and settings.gradient_clip_val else float("inf")

    def size_of(self, batch: Any) -> int:
        """How much a batch counts where `self.log` is not told."""
        return int(extract_batch_size(batch))


_VALIDATION = {"on_validation_batch_start", "on_validation_batch_end"}
