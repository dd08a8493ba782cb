"""The measured importance beside the stated order."""

from __future__ import annotations

from tuner.report.figure import Figure, axis, label, rounded
from tuner.report.record import StudyRecord
from tuner.report.words import counted


def shares(record: StudyRecord) -> Figure | None:
    """The measured importance of every hyperparameter, from top to bottom in the order that was stated."""
    found = record.importance
    if found is None or found.reason is not None:
        return None
    rows = [p for p in found.parameters if p.shares]
    if not rows:
        return None
    names = [label(p.name if p.priority is None else f"{p.priority} · {p.name}") for p in rows]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": method,
            "y": names,
            "x": [rounded(p.shares.get(method, 0.0)) for p in rows],
            "marker": {"color": colour},
            "hovertemplate": f"%{{y}}: %{{x:.0%}}<extra>{method}</extra>",
        }
        for method, colour in (("PED-ANOVA", "@best"), ("fANOVA", "@second"))
    ]
    beyond = [p.name for p in rows if p.beyond_chance]
    orders = (("PED-ANOVA", found.agreement_ped_anova), ("fANOVA", found.agreement_fanova))
    told = ", ".join(f"{value:.2f} by {method}" for method, value in orders if value is not None)
    says = " ".join(
        [
            "From top to bottom in the stated order; the bars are shares of what sets the best trials apart "
            f"(PED-ANOVA) and of what moves a trial's rank (fANOVA), over {counted(found.trials, 'trial')}.",
            *([f"Beyond chance: {', '.join(beyond)}."] if beyond else []),
            *([f"Rank correlation with the stated order: {told}."] if told else []),
            *found.sentences,
        ]
    )
    layout = {
        "barmode": "group",
        "xaxis": axis("share", tickformat=".0%", rangemode="tozero"),
        "yaxis": axis(autorange="reversed", type="category"),
    }
    return Figure("importance", "Importance beside the stated order", says, data, layout, 120 + 34 * len(rows))
