"""The search space: which hyperparameters are searched, where, why, and in which order of priority."""

from tuner.space.grammar import Choice, FloatRange, IntRange, Parameter
from tuner.space.space import Space, read_space, removed_values, shipped_spaces, short, without_values

__all__ = [
    "Choice",
    "FloatRange",
    "IntRange",
    "Parameter",
    "Space",
    "read_space",
    "removed_values",
    "shipped_spaces",
    "short",
    "without_values",
]
