"""Ask and tell: Optuna's sampler and pruner on a study in memory that follows the storage."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tuner.search.history import OUTSIDE
from tuner.search.memory import Memory
from tuner.search.priority import PrioritySampler
from tuner.search.pruners import PRUNERS, NumberedHyperbandPruner, remembered, remembers
from tuner.search.samplers import SAMPLERS, grid_values
from tuner.search.search_space import bend, distribution, straight_distribution, straighten
from tuner.space import Space
from tuner.trial import Objective, Trial, TrialState, trial_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

_FEW = 2000
"""A space of at most so many configurations is finite to the search: it can be exhausted."""

_ATTEMPTS = 10
_ANOTHER = 10_007
"""A proposal that equals an earlier trial is drawn again, as that of a number this much higher, up to ten times."""


class Search:
    """Proposes configurations and says which trials to prune.

    Its memory is a copy: everything is told by `see` from the storage, so that a worker that joins late, or a study
    that goes on after a crash, proposes what any other would.

    Args:
        space: what is searched.
        objective: which way is better.
        sampler: a name in SAMPLERS.
        pruner: a name in PRUNERS.
        seed: the study's seed.
        epochs: epochs of a whole trial.
        start: complete configurations for the first trials, whatever the sampler; the first of them takes the place of
            the defaults.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        sampler: str,
        pruner: str,
        seed: int,
        epochs: int,
        start: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.space = space.starting_at(space.divide(start[0])[0]) if start else space
        self._start = [None if outside else space.complete(inside) for inside, outside in map(space.divide, start)]
        self._refused = 0
        self.objective = objective
        self._make_sampler = SAMPLERS[sampler]
        self._seed = seed
        # The priority sampler knows log_complement scales itself; Optuna's get them straightened.
        self._straight = sampler != "priority"
        self._together = sampler == "priority"
        self._whole = sampler in ("gp", "cmaes")  # they learn only from complete trials that have every parameter
        self._distributions: dict[str, BaseDistribution] = {
            path: (straight_distribution if self._straight else distribution)(parameter)
            for path, parameter in space.parameters.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made = PRUNERS[pruner](epochs)
        self._memory = Memory()
        # A fixed name: Hyperband's brackets follow from it.
        self._study = optuna.create_study(
            storage=self._memory, direction=objective.direction, pruner=made, study_name="study"
        )
        self._pruner_remembers = remembers(made)
        self._asked: dict[int, optuna.Trial] = {}  # by our number: running trials, whoever runs them
        self._done: set[int] = set()
        self._tried: set[str] = set()
        among = _grid_of(space) if sampler == "grid" else None
        self._all = space.configurations(_FEW, among)

    @property
    def finite(self) -> bool:
        """Whether the space has so few configurations that all of them could be tried."""
        return self._all is not None

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of the space has been tried, or is being tried."""
        return self._all is not None and not self._untried()

    def _untried(self) -> list[dict[str, Any]]:
        return [params for params in self._all or [] if _identity(params) not in self._tried]

    def propose(self, number: int) -> dict[str, Any]:
        """Propose the values of trial `number`, only those of parameters that apply, and none tried before.

        Of a space that is exhausted it proposes one again.
        """
        begin = self._start[number] if number < len(self._start) else None
        if begin is not None and _identity(begin) not in self._tried:
            trial, params = self._ask_for(begin, number)
        else:
            trial, params = self._ask_for_new(number)
        self._asked[number] = trial
        self._tried.add(_identity(params))
        return params

    def propose_together(
        self, numbers: Sequence[int], shape: Collection[str], like: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Propose the values of several trials to be trained in one pass, in the order of their numbers.

        A sampler that knows how proposes values that agree on the parameters of the shape; others, each by itself.

        Args:
            numbers: of the trials.
            shape: parameters on which they should agree.
            like: the values of a trial that is being trained, with which they should agree.
        """
        begun = [number for number in numbers if number < len(self._start)]
        params = {number: self.propose(number) for number in begun}
        left = [number for number in numbers if number not in params]
        if self._together and left:
            sampler = self._make_sampler(self.space, left[0], self._seed)
            if not isinstance(sampler, PrioritySampler):
                raise TypeError(f"{type(sampler).__name__} cannot propose a cohort")
            wanted = sampler.cohort(self._study, self._distributions, len(left), shape, like)
            for number, values in zip(left, wanted, strict=True):
                active = {path: values[path] for path in self.space.parameters if self.space.active(path, values)}
                if _identity(active) not in self._tried:
                    self._asked[number], params[number] = self._ask_for(active, number)
                    self._tried.add(_identity(params[number]))
        return [params[number] if number in params else self.propose(number) for number in numbers]

    def refuse(self, number: int) -> None:
        """Take a proposal back: somebody else was faster with the same values."""
        self._forget(number)
        self._refused += 1

    def _ask_for_new(self, number: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """Ask the sampler until it proposes something new; of a small space, take something new after ten times."""
        draw = number + self._refused * _ATTEMPTS * _ANOTHER
        trial, params = self._ask(number, draw)
        for attempt in range(1, _ATTEMPTS):
            if _identity(params) not in self._tried:
                return trial, params
            self._study.tell(trial, state=OptunaState.FAIL)
            trial, params = self._ask(number, draw + attempt * _ANOTHER)
        if _identity(params) in self._tried and (left := self._untried()):
            self._study.tell(trial, state=OptunaState.FAIL)
            return self._ask_for(left[trial_seed(self._seed, number) % len(left)], number)
        return trial, params

    def _ask_for(self, params: Mapping[str, Any], number: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """Ask for a trial of these values."""
        self._will_be(number)
        self._study.enqueue_trial(self._straightened(params))
        return self._ask(number, number)

    def _ask(self, number: int, draw: int) -> tuple[optuna.Trial, dict[str, Any]]:
        self._will_be(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.sampler = self._make_sampler(self.space, draw, self._seed)
            trial = self._study.ask()
            params: dict[str, Any] = {}
            for path, parameter in self.space.parameters.items():
                if self.space.active(path, params):
                    value = _suggest(trial, path, self._distributions[path])
                    params[path] = bend(parameter, value) if self._straight else value
        return trial, params

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        """Whether the trial should stop here because others were better at this epoch."""
        return number in self.pruned_of([(number, epoch, value)])

    def pruned_of(self, reports: Iterable[tuple[int, int, float]]) -> set[int]:
        """Which of these trials should stop here: each a number, an epoch, and the objective at it.

        All are heard before any is judged, so that trials of one cohort are compared with each other, too.
        """
        heard = []
        for number, epoch, value in reports:
            trial = self._asked.get(number)
            if trial is not None:  # not a confirming run, which is trained to its end, to be compared
                trial.report(value, epoch)
                heard.append((number, trial))
        return {number for number, trial in heard if trial.should_prune()}

    def see(self, trials: Iterable[Trial]) -> None:
        """Take note of trials as they stand in the storage: running, reported, finished."""
        for trial in sorted(trials, key=lambda t: t.number):
            if trial.number in self._done or trial.params is None or trial.confirms is not None:
                continue
            self._tried.add(_identity(trial.params))
            if self._whole and self.space.divide(trial.params)[1]:
                continue
            if trial.state is TrialState.RUNNING:
                self._follow(trial)
            elif trial.state.finished:
                self._finish(trial)
            elif trial.number in self._asked:  # it went back to the queue: what it reported no longer counts
                self._forget(trial.number)

    def _will_be(self, number: int) -> None:
        """The next trial of the study in memory is this one of ours."""
        if isinstance(self._study.pruner, NumberedHyperbandPruner):
            self._study.pruner.numbers[self._memory.count(self._study._study_id)] = number

    def _follow(self, trial: Trial) -> None:
        """Bring the copy of a trial up to its latest report, asking the pruner at each as the trial's worker did."""
        known: Mapping[int, float] = {}
        if (copied := self._asked.get(trial.number)) is not None:
            known = self._memory.get_trial(copied._trial_id).intermediate_values
            if not known.items() <= trial.values.items():  # another worker has taken it up, from an earlier epoch
                self._forget(trial.number)
                known = {}
        if trial.number not in self._asked:
            self._asked[trial.number] = optuna.Trial(self._study, self._add(trial, OptunaState.RUNNING))
        following = self._asked[trial.number]
        for epoch, value in trial.values.items():
            if epoch not in known:
                following.report(value, epoch)
                if self._pruner_remembers:
                    following.should_prune()  # successive halving remembers who reached which rung

    def _finish(self, trial: Trial) -> None:
        self._done.add(trial.number)
        result = trial.outcome
        # Never FAIL, which samplers forget: a failed or infeasible trial is a pruned one with nothing to show.
        bad = result.infeasible or result.state is TrialState.FAILED
        state, value = OptunaState.PRUNED, None
        if result.state is TrialState.COMPLETE:
            state, value = OptunaState.COMPLETE, result.value
        elif self._whole and (worst := self._worst_value()) is not None:
            state, value = OptunaState.COMPLETE, worst if bad or result.value is None else result.value
        if bad:
            self._follow(trial)
            self._forget(trial.number)
            self._add(trial, state, value)
        elif trial.number in self._asked:
            self._follow(trial)
            self._end(trial.number, state, value)
        else:
            self._add(trial, state, value, trial.values)

    def _add(
        self, trial: Trial, state: OptunaState, value: float | None = None, reports: Mapping[int, float] | None = None
    ) -> int:
        """Add a copy of a trial to the study in memory, with these reports; the answer is its id there."""
        self._will_be(trial.number)
        reports = reports or {}
        now = datetime.now()
        copy = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=state,
            value=_shown_value(state, value, reports),
            datetime_start=now,
            datetime_complete=now if state.is_finished() else None,
            system_attrs=dict(remembered(self._study.pruner, self._study, trial.number, reports)),
            intermediate_values=dict(reports),
            **self._coordinates(trial),
        )
        return self._memory.create_new_trial(self._study._study_id, copy)

    def _end(self, number: int, state: OptunaState, value: float | None = None) -> None:
        """End the copy of a running trial."""
        identity = self._asked.pop(number)._trial_id
        shown = _shown_value(state, value, self._memory.get_trial(identity).intermediate_values)
        self._memory.set_trial_state_values(identity, state, None if shown is None else [shown])

    def _straightened(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the sampler has them."""
        if not self._straight:
            return dict(params)
        return {path: straighten(self.space.parameters[path], value) for path, value in params.items()}

    def _forget(self, number: int) -> None:
        """End the copy of a running trial; FAIL is what samplers and pruners ignore."""
        self._end(number, OptunaState.FAIL)

    def _worst_value(self) -> float | None:
        values = [t.value for t in self._study.get_trials(deepcopy=False, states=(OptunaState.COMPLETE,))]
        return max((v for v in values if v is not None), key=self.objective.key, default=None)

    def _coordinates(self, trial: Trial) -> dict[str, Any]:
        """A trial's values as the study in memory has them; those that the space has no more stand aside."""
        params, outside = self.space.divide(trial.params or {})
        params = self._straightened(params)
        whole = params.keys() == self._distributions.keys()
        distributions = self._distributions if whole else {path: self._distributions[path] for path in params}
        return {"params": params, "distributions": distributions, "user_attrs": {OUTSIDE: outside} if outside else {}}


def _shown_value(state: OptunaState, value: float | None, reports: Mapping[int, float]) -> float | None:
    """The value of a copy; that of a pruned trial is its last report, as Optuna has it."""
    if state is not OptunaState.PRUNED or not reports:
        return value
    last = reports[max(reports)]
    return last if math.isfinite(last) else value


def _grid_of(space: Space) -> dict[str, list[Any]]:
    """The grid's values by parameter, as they come back from Optuna."""
    return {path: [bend(p, straighten(p, v)) for v in grid_values(p)] for path, p in space.parameters.items()}


def _identity(params: Mapping[str, Any]) -> str:
    """What two trials of the same values have in common."""
    return repr(sorted(params.items()))


def _suggest(trial: optuna.Trial, name: str, values: BaseDistribution) -> Any:
    if isinstance(values, FloatDistribution):
        return trial.suggest_float(name, values.low, values.high, log=values.log)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(name, values.choices)
    raise TypeError(f"{name} has a distribution of an unknown kind: {values!r}")
