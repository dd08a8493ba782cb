"""The search: Optuna's samplers and pruners by name, and ours, asked for configurations and told results."""

from tuner.search.copy import OptunaCopy, create_optuna_tables, delete_copy
from tuner.search.priority import PrioritySampler, open_priorities
from tuner.search.search import Search
from tuner.search.search_space import SearchSpace, search_space

__all__ = [
    "OptunaCopy",
    "PrioritySampler",
    "Search",
    "SearchSpace",
    "create_optuna_tables",
    "delete_copy",
    "open_priorities",
    "search_space",
]
