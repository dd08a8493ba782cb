"""Which trial is the best, and which are run again before one may say so: checked on small studies by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tuner.best.choose import Chosen, choose, confirmations, leading
from tuner.trial import Objective, Trial, TrialResult, TrialState, trial_seed

LOSS, ACCURACY = Objective("val_loss"), Objective("val_acc", "maximize")
SEED = 7


def trial(number: int, value: float | None, state: TrialState = TrialState.COMPLETE, **more: Any) -> Trial:
    infeasible = more.pop("infeasible", False)
    result = TrialResult(state, value=value, infeasible=infeasible) if state.finished else None
    return Trial(number, {"model.depth": number}, seed=1000 + number, state=state, result=result, **more)


def confirming(number: int, confirms: int, seed: int, value: float | None) -> Trial:
    """A confirming run; without a value it failed."""
    state = TrialState.FAILED if value is None else TrialState.COMPLETE
    return Trial(number, {}, seed, state, confirms, result=TrialResult(state, value=value))


def numbers(trials: Sequence[Trial]) -> list[int]:
    return [t.number for t in trials]


def confirm_all(
    trials: list[Trial], objective: Objective, seeds: int, score: Callable[[int, int], float | None]
) -> list[list[int]]:
    """Run every round of confirming runs that is asked for; return who was run in each. score(trial, round)."""
    rounds: list[list[int]] = []
    while needed := confirmations(trials, objective, seeds, SEED):
        assert len(rounds) < 20, "it asks for ever"
        assert len({seed for _, seed in needed}) == 1
        rounds.append([number for number, _ in needed])
        for number, seed in needed:
            trials.append(confirming(len(trials), number, seed, score(number, len(rounds))))
    return rounds


# Leading


def test_the_three_best_complete_proposals_lead_best_first() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75), trial(3, 0.125)]
    assert numbers(leading(trials, LOSS)) == [3, 1, 0]
    assert numbers(leading(trials, ACCURACY)) == [2, 0, 1]
    assert numbers(leading(trials, LOSS, count=1)) == [3]


def test_of_equal_proposals_the_earlier_leads() -> None:
    trials = [trial(2, 0.5), trial(0, 0.5), trial(1, 0.25)]
    assert numbers(leading(trials, LOSS)) == [1, 0, 2]
    assert numbers(leading([*trials, trial(3, 0.75)], ACCURACY)) == [3, 0, 2]


def test_a_value_of_zero_leads_when_minimising_and_a_negative_one_before_it() -> None:
    assert numbers(leading([trial(0, 0.25), trial(1, 0.0), trial(2, -0.5)], LOSS)) == [2, 1, 0]


def test_what_is_not_complete_never_leads_however_good_it_was() -> None:
    trials = [
        trial(0, 0.5),
        trial(1, 0.125, TrialState.PRUNED),
        trial(2, None, TrialState.PRUNED, infeasible=True),
        trial(3, None, TrialState.FAILED),
        trial(4, None, TrialState.RUNNING),
        trial(5, None, TrialState.WAITING),
        confirming(6, 0, 11, 0.0625),
    ]
    assert numbers(leading(trials, LOSS)) == [0]


def test_nothing_leads_an_empty_study() -> None:
    assert leading([], LOSS) == []


# Confirming


def test_contenders_drop_out_one_a_round_three_then_two_then_one() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75), trial(3, 0.125)]
    luck = {0: 0.3, 1: 0.2, 3: 0.9}  # trial 3 only had a lucky seed
    assert confirm_all(trials, LOSS, 3, lambda number, _: luck[number]) == [[3, 1, 0], [1, 0], [1]]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.trial.number == 1
    assert [value for _, value in chosen.seeds] == [0.2, 0.2, 0.2]


def test_the_last_of_each_round_is_the_one_with_the_worst_mean_over_its_runs_so_far() -> None:
    trials = [trial(0, 0.1), trial(1, 0.2), trial(2, 0.3)]
    scores = {(0, 1): 0.4, (1, 1): 0.6, (2, 1): 0.9, (0, 2): 0.9, (1, 2): 0.5, (1, 3): 0.7}
    # After two rounds trial 0 has the mean 0.65, trial 1 has 0.55.
    assert confirm_all(trials, LOSS, 3, lambda number, round_: scores[number, round_]) == [[0, 1, 2], [0, 1], [1]]


def test_the_smallest_drops_out_when_maximising() -> None:
    trials = [trial(0, 0.5), trial(1, 0.75), trial(2, 0.625)]
    scores = {0: 0.7, 1: 0.5, 2: 0.6}
    assert confirm_all(trials, ACCURACY, 3, lambda number, _: scores[number]) == [[1, 2, 0], [0, 2], [0]]


def test_a_single_contender_gets_all_the_seeds() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25, TrialState.PRUNED)]
    assert confirm_all(trials, LOSS, 3, lambda *_: 0.5) == [[0], [0], [0]]


def test_more_seeds_than_contenders_go_to_the_last_one_left() -> None:
    trials = [trial(0, 0.5), trial(1, 0.75)]
    assert confirm_all(trials, LOSS, 4, lambda number, _: float(number)) == [[0, 1], [0], [0], [0]]


@pytest.mark.parametrize("trials", [[], [trial(0, None, TrialState.FAILED)], [trial(0, 0.5, TrialState.PRUNED)]])
def test_nothing_is_confirmed_where_nothing_is_complete(trials: list[Trial]) -> None:
    assert confirmations(trials, LOSS, 3, SEED) == []


def test_nothing_is_confirmed_without_seeds() -> None:
    assert confirmations([trial(0, 0.5)], LOSS, 0, SEED) == []


def test_the_seeds_are_new_different_from_each_other_and_the_same_whoever_asks() -> None:
    trials = [trial(number, number / 8) for number in range(100)]
    known = {trial_seed(SEED, number) for number in range(100)}  # the seeds that the proposals were trained with
    confirm_all(trials, LOSS, 5, lambda *_: 0.5)
    new = [t.seed for t in trials if t.confirms == 0]
    assert len(set(new)) == len(new) == 5
    assert not set(new) & known
    again = [trial(number, number / 8) for number in range(100)]
    confirm_all(again, LOSS, 5, lambda *_: 0.5)
    assert [t.seed for t in again if t.confirms == 0] == new
    [(_, other), *_] = confirmations([trial(0, 0.5)], LOSS, 1, SEED + 1)
    assert other not in new


def test_a_run_that_is_missing_from_a_round_is_asked_for_again_alone() -> None:
    trials = [trial(0, 0.25), trial(1, 0.5), trial(2, 0.75)]
    asked = confirmations(trials, LOSS, 3, SEED)
    trials += [confirming(3, *asked[0], 0.25), confirming(4, *asked[2], 0.75)]
    assert confirmations(trials, LOSS, 3, SEED) == [asked[1]]


@pytest.mark.parametrize("objective", [LOSS, ACCURACY])
def test_a_failed_confirming_run_counts_as_the_worst_and_is_not_asked_for_again(objective: Objective) -> None:
    trials = [trial(0, 0.5), trial(1, 0.5), trial(2, 0.5)]
    rounds = confirm_all(trials, objective, 3, lambda number, _: None if number == 0 else 0.5)
    assert rounds == [[0, 1, 2], [1, 2], [1]]
    chosen = choose(trials, objective)
    assert chosen is not None
    assert chosen.trial.number == 1


def test_confirming_ends_although_every_run_fails_and_the_search_then_has_the_last_word() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75)]
    assert confirm_all(trials, LOSS, 3, lambda *_: None) == [[1, 0, 2], [0, 1], [0]]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert (chosen.trial.number, chosen.seeds, chosen.mean) == (1, (), None)


def test_a_study_that_goes_on_confirms_its_new_leaders_only() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75)]
    scores = {0: 0.6, 1: 0.3, 2: 0.9, 9: 0.2, 10: 0.8}
    confirm_all(trials, LOSS, 3, lambda number, _: scores[number])
    trials += [trial(9, 0.125), trial(10, 0.375)]
    # Leaders are now 9, 1, 10. Trial 1 has its runs of all three seeds; 10 drops out after one, then 1.
    assert confirm_all(trials, LOSS, 3, lambda number, _: scores[number]) == [[9, 10], [9], [9]]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.trial.number == 9
    assert chosen.mean == pytest.approx(0.2)


def test_an_old_winner_stays_the_winner_when_the_new_leaders_were_only_lucky() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75)]
    scores = {0: 0.6, 1: 0.3, 2: 0.9, 9: 0.7, 10: 0.8}
    confirm_all(trials, LOSS, 3, lambda number, _: scores[number])
    trials += [trial(9, 0.125), trial(10, 0.375)]
    assert confirm_all(trials, LOSS, 3, lambda number, _: scores[number]) == [[9, 10], [9]]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.trial.number == 1


def test_more_seeds_asked_for_later_continue_where_confirming_stood() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75)]
    assert confirm_all(trials, LOSS, 1, lambda number, _: float(number)) == [[1, 0, 2]]
    assert confirm_all(trials, LOSS, 2, lambda number, _: float(number)) == [[0, 1]]


# Choosing


def test_without_confirming_runs_the_best_proposal_is_chosen() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75)]
    for objective, number in ((LOSS, 1), (ACCURACY, 2)):
        chosen = choose(trials, objective)
        assert chosen is not None
        assert (chosen.trial.number, chosen.seeds) == (number, ())


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial(0, None, TrialState.RUNNING)],
        [trial(0, 0.5, TrialState.PRUNED), trial(1, None, TrialState.FAILED)],
        [trial(0, None, TrialState.PRUNED, infeasible=True)],
    ],
)
def test_nothing_is_chosen_where_nothing_is_complete(trials: list[Trial]) -> None:
    assert choose(trials, LOSS) is None


def test_an_infeasible_trial_is_never_chosen() -> None:
    trials = [trial(0, None, TrialState.PRUNED, infeasible=True), trial(1, 1e9)]
    for objective in (LOSS, ACCURACY):
        chosen = choose(trials, objective)
        assert chosen is not None
        assert chosen.trial.number == 1


def test_among_those_with_most_seeds_the_best_mean_is_chosen() -> None:
    trials = [
        trial(0, 0.1),
        trial(1, 0.2),
        trial(2, 0.3),
        *(confirming(3 + i, 0, seed, value) for i, (seed, value) in enumerate([(11, 0.1), (12, 0.9)])),  # mean 0.5
        *(confirming(5 + i, 1, seed, value) for i, (seed, value) in enumerate([(11, 0.4), (12, 0.5)])),  # mean 0.45
        confirming(7, 2, 11, 0.01),  # better than both, with one seed only
    ]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.trial.number == 1
    assert chosen.seeds == ((11, 0.4), (12, 0.5))
    best = choose(trials, ACCURACY)
    assert best is not None
    assert best.trial.number == 0


def test_a_confirming_run_that_failed_costs_the_trial_its_place() -> None:
    trials = [
        trial(0, 0.1),
        trial(1, 0.2),
        confirming(2, 0, 11, 0.1),
        confirming(3, 0, 12, 0.1),
        confirming(4, 0, 13, None),
        confirming(5, 1, 11, 0.3),
        confirming(6, 1, 12, 0.3),
    ]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.trial.number == 1


def test_mean_and_deviation_over_the_seeds() -> None:
    # Mean (2 + 4 + 9) / 3 = 5; deviations -3, -1, 4; sample variance (9 + 1 + 16) / 2 = 13.
    chosen = Chosen(trial(0, 1.0), ((11, 2.0), (12, 4.0), (13, 9.0)))
    assert chosen.mean == pytest.approx(5.0)
    assert chosen.deviation == pytest.approx(13**0.5)


def test_one_seed_has_a_mean_and_no_deviation_and_none_has_neither() -> None:
    one, none = Chosen(trial(0, 1.0), ((11, 2.0),)), Chosen(trial(0, 1.0))
    assert (one.mean, one.deviation) == (2.0, None)
    assert (none.mean, none.deviation) == (None, None)


def test_the_confirming_runs_are_told_in_words() -> None:
    three = Chosen(trial(0, 1.0), ((11, 2.0), (12, 4.0), (13, 9.0)))
    assert three.confirmed == "5 ± 3.6 over 3 new seeds"
    assert Chosen(trial(0, 1.0), ((11, 0.25),)).confirmed == "0.25 over 1 new seed"
    assert Chosen(trial(0, 1.0)).confirmed == ""


# The second


def test_the_second_is_who_came_next_with_its_own_runs() -> None:
    trials = [trial(0, 0.5), trial(1, 0.25), trial(2, 0.75)]
    confirm_all(trials, LOSS, 3, lambda number, round_: number + 0.1 * round_)
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.second is not None
    assert (chosen.trial.number, chosen.second.number) == (0, 1)
    assert [value for _, value in chosen.seeds] == pytest.approx([0.1, 0.2, 0.3])
    assert [value for _, value in chosen.second_seeds] == pytest.approx([1.1, 1.2])


def test_a_study_of_one_trial_has_no_second() -> None:
    chosen = choose([trial(0, 0.5)], LOSS)
    assert chosen is not None
    assert chosen.second is None
    assert chosen.told_apart is None


def seeded(*values: float) -> tuple[tuple[int, float], ...]:
    return tuple(enumerate(values))


def test_the_best_is_told_from_the_second_by_students_t() -> None:
    # Means 2 and 6, pooled variance (2 + 2) / 4 = 1, error √(2/3): t = 4.9 > 2.78 with four degrees of freedom.
    apart = Chosen(trial(0, 1.0), seeded(1, 2, 3), trial(1, 1.1), seeded(5, 6, 7))
    assert apart.told_apart is True
    # Means 2 and 4: t = 2.45 < 2.78.
    alike = Chosen(trial(0, 1.0), seeded(1, 2, 3), trial(1, 1.1), seeded(3, 4, 5))
    assert alike.told_apart is False


def test_one_run_each_tells_nothing_apart() -> None:
    assert Chosen(trial(0, 1.0), seeded(1), trial(1, 1.1), seeded(9)).told_apart is None
    assert Chosen(trial(0, 1.0), (), trial(1, 1.1), ()).told_apart is None


def test_in_words_the_mean_of_new_seeds_comes_before_the_lucky_value() -> None:
    alike = Chosen(trial(3, 1.0), seeded(1, 2, 3), trial(1, 1.1), seeded(3, 4, 5))
    assert alike.in_words == ("2 ± 1 over 3 new seeds (trial 3; 1 with its own seed); cannot be told from #2, trial 1")
    apart = Chosen(trial(3, 1.0), seeded(1, 2, 3), trial(1, 1.1), seeded(5, 6, 7))
    assert "told" not in apart.in_words
    assert Chosen(trial(3, 1.25)).in_words == "1.25 in trial 3"


def test_a_second_that_diverged_with_a_new_seed_is_no_second() -> None:
    trials = [trial(0, 0.05), trial(1, 0.06)]
    seeds = [trial_seed(SEED, -1 - i) for i in range(3)]
    trials += [confirming(10 + i, 0, seed, 0.05 + 0.001 * i) for i, seed in enumerate(seeds)]
    trials += [confirming(20, 1, seeds[0], 0.052), confirming(21, 1, seeds[1], None)]
    chosen = choose(trials, LOSS)
    assert chosen is not None
    assert chosen.trial.number == 0
    assert chosen.second is None
