"""In plain words, where two measurements of importance disagree with each other and both with the stated order."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.insight.parameter import FANOVA, PED_ANOVA, ParameterImportance

CLEAR = 0.1
"""Two shares that differ by less are taken to be equal when a sentence is to be said about them."""

FAR_APART = 0.25
"""Two methods that differ by more about a parameter disagree, unless it comes first anyway."""


def disagreements(parameters: Sequence[ParameterImportance]) -> list[str]:
    """The sentences; none but one while nothing stands out from chance.

    Args:
        parameters: every parameter, in the stated order.
    """
    beyond = [p for p in parameters if p.beyond_chance]
    if beyond:
        return [*_between_methods(parameters), *_against_the_order(beyond, parameters)]
    if any(p.ped_anova is not None for p in parameters):
        return [f"By {PED_ANOVA} no parameter stands out from chance: more trials would tell."]
    return []


def _between_methods(parameters: Sequence[ParameterImportance]) -> list[str]:
    """Where the two methods tell different stories."""
    both = [(p, p.ped_anova, p.fanova) for p in parameters if p.ped_anova is not None and p.fanova is not None]
    if not both:
        return []
    meaning = f"{PED_ANOVA} asks what sets the best trials apart, {FANOVA} what moves a trial's rank anywhere."
    one = max(both, key=lambda row: row[1])
    other = max(both, key=lambda row: row[2])
    if one[1] - other[1] >= CLEAR and other[2] - one[2] >= CLEAR:
        return [
            f"The methods disagree: by {PED_ANOVA}, {one[0].name} matters most ({_told(one)}); "
            f"by {FANOVA}, {other[0].name} ({_told(other)}). {meaning}"
        ]
    apart = max((row for row in both if row != one), key=lambda row: abs(row[1] - row[2]), default=None)
    if apart is not None and abs(apart[1] - apart[2]) >= FAR_APART:
        return [f"The methods disagree on {apart[0].name}: {_told(apart)}. {meaning}"]
    return []


def _told(row: tuple[ParameterImportance, float, float]) -> str:
    return f"{row[1]:.0%} by {PED_ANOVA}, {row[2]:.0%} by {FANOVA}"


def _against_the_order(beyond: Sequence[ParameterImportance], parameters: Sequence[ParameterImportance]) -> list[str]:
    """Which of those beyond chance mattered clearly more than others stated before them, by both methods."""
    sentences = []
    for p in sorted(beyond, key=lambda p: -min(p.shares.values())):
        passed = [q for q in parameters if q.rank < p.rank and _clearly_above(p, q)]
        if passed:
            stated = "last" if p.priority is None else _ordinal(p.priority)
            shares = ", ".join(f"{share:.0%} by {method}" for method, share in p.shares.items())
            more = _standing(p, parameters) or f"more than {_listed(passed)}"
            sentences.append(f"{p.name} is stated {stated} but explains {more}: {shares}.")
    return sentences


def _standing(parameter: ParameterImportance, parameters: Sequence[ParameterImportance]) -> str | None:
    """`most of all`, or `most after` the one that every method places first; None further down."""
    mine = parameter.shares
    above = [[q for q in parameters if q.shares.get(method, 0.0) > share] for method, share in mine.items()]
    if not any(above):
        return "most of all"
    if len(above[0]) == 1 and all(found == above[0] for found in above):
        return f"most after {above[0][0].name}"
    return None


def _clearly_above(one: ParameterImportance, other: ParameterImportance) -> bool:
    mine, its = one.shares, other.shares
    return bool(mine) and mine.keys() == its.keys() and all(mine[m] - its[m] >= CLEAR for m in mine)


def _listed(parameters: Sequence[ParameterImportance]) -> str:
    names = [f"{p.name} ({_ordinal(p.priority)})" for p in parameters if p.priority is not None]
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def _ordinal(number: int) -> str:
    teens = 10 < number % 100 < 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
