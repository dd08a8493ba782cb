"""Hyperparameters that are known by their names (documented.md §1): what they are, where to search them, and how early.

A range is put around the argument's own default, because whoever wrote the class has seen that one work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


class _Required:
    """Stands for the default of an argument that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Argument:
    """One argument of a class.

    Attributes:
        name: as its signature has it.
        default: its default, or `REQUIRED`.
        type: how its annotation reads; "" without one.
        words: what it may be, where its type says so (a Literal, an Enum, a bool).
        what: what its docstring says.
    """

    name: str
    default: Any = REQUIRED
    type: str = ""
    words: tuple[Any, ...] = ()
    what: str = ""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


Draft = Mapping[str, Any]
"""A range as a space writes it: `{"float": {...}}`, with `why` where the range has a reason of its own."""


@dataclass(frozen=True)
class Documented:
    """A hyperparameter of documented.md.

    Attributes:
        name: the documented one.
        aliases: other names under which it is found.
        priority: the stated one.
        what: what it is.
        why: why it is searched.
        draft: a range around a default, or None where that default leaves nothing to search; None where it is a word.
        usual: the default of an argument that has none.
    """

    name: str
    aliases: tuple[str, ...]
    priority: int
    what: str
    why: str
    draft: Callable[[Any], Draft | None] | None
    usual: Any


def known(name: str) -> Documented | None:
    """The documented hyperparameter that an argument of this name is, if any."""
    plain = name.lower()
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    return next((_BY_NAME[end] for end in _ENDINGS if plain.endswith(f"_{end}")), None)


def propose(argument: Argument) -> dict[str, Any] | None:
    """A parameter of a space for an argument, or None if nothing is known of it."""
    if (found := known(argument.name)) is None:
        return None
    default = found.usual if argument.required else argument.default
    if argument.words:
        default = argument.words[0] if argument.required else default
        drafted = _choice(argument.words, default) if found.draft is None else None
    elif found.draft is None or not _is_number(default) or not _takes_numbers(argument.type):
        return None
    else:
        drafted = found.draft(default)
    if drafted is None:
        return None
    whence = f"around {'the usual' if argument.required else 'its own'} default {_told(default)}"
    return {
        "what": argument.what or found.what,
        **{kind: drafted[kind] for kind in ("float", "int", "choice") if kind in drafted},
        "priority": found.priority,
        "why": f"{found.why}; {drafted.get('why', whence)}",
    }


def _decades(down: float, up: float, most: float = math.inf) -> Callable[[Any], Draft | None]:
    """A factor down and a factor up on a log scale; 0 is switched off, so it becomes a choice of decades with it."""

    def draft(default: Any) -> Draft | None:
        if default == 0:
            return _CHOICE_WITH_NONE if most > 1 else None
        if not 0 < default <= most:
            return None
        high = max(min(default * up, most), default * 3)
        scaled = {"low": _rounded(default / down), "high": _rounded(high), "scale": "log", "default": float(default)}
        return {"float": scaled}

    return draft


_CHOICE_WITH_NONE: Draft = {
    "choice": {"values": [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2], "default": 0.0},
    "why": "none at all, its own default, is among them",
}


def _rate(default: Any) -> Draft | None:
    """Decades around a learning rate; above 1 hardly any works."""
    if default <= 0:
        return None
    high = max(min(default * 100, 1.0), default * 10)
    return {
        "float": {"low": _rounded(default / 100), "high": _rounded(high), "scale": "log", "default": float(default)}
    }


def _halves_and_doubles(default: Any) -> Draft | None:
    """A whole number, halved and doubled twice."""
    if int(default) != default or default < 1:
        return None
    around = {int(default * 2.0**k) for k in (-2, -1, 0, 1, 2)}
    values = sorted({value for value in around if value >= min(8, default)})
    return {
        "choice": {"values": values, "default": int(default)},
        "why": f"its own default {default:g} halved and doubled",
    }


def _capacity(default: Any) -> Draft | None:
    """A whole number, a quarter to four times, on a log scale."""
    if int(default) != default or default < 1:
        return None
    low, high = max(2, int(default) // 4), int(default) * 4
    return {"int": {"low": min(low, int(default)), "high": high, "scale": "log", "default": int(default)}}


def _layers(default: Any) -> Draft | None:
    """A few layers less, a few more."""
    if int(default) != default or default < 0:
        return None
    low = min(int(default), max(1, int(default) - 2))
    return {"int": {"low": low, "high": int(default) + 3, "default": int(default)}}


def _towards_one(low: float, high: float) -> Callable[[Any], Draft | None]:
    """What matters is how close it is to 1."""

    def draft(default: Any) -> Draft | None:
        if not 0 <= default < 1:
            return None
        ends = {"low": min(low, float(default)), "high": max(high, float(default))}
        return {"float": {**ends, "scale": "log_complement", "default": float(default)}}

    return draft


def _share(most: float) -> Callable[[Any], Draft | None]:
    """A probability from 0 on."""

    def draft(default: Any) -> Draft | None:
        if not 0 <= default < 1:
            return None
        high = most if default < most else _rounded((1 + default) / 2)
        return {"float": {"low": 0.0, "high": high, "default": float(default)}}

    return draft


def _choice(words: tuple[Any, ...], default: Any) -> Draft | None:
    """All the words that a type lists."""
    if len(words) < 2 or default not in words:
        return None
    return {"choice": {"values": list(words), "default": default}, "why": "all that its type allows"}


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _takes_numbers(annotation: str) -> bool:
    """Whether a number may be given; without an annotation its default has said so."""
    return not annotation or "int" in annotation.lower() or "float" in annotation.lower()


_TABLE = (
    Documented(
        "learning_rate",
        ("lr", "base_lr", "init_lr", "initial_lr", "max_lr"),
        1,
        "step size α of the optimiser",
        "decides whether training works at all; its useful values span decades",
        _rate,
        1e-3,
    ),
    Documented(
        "batch_size",
        ("train_batch_size", "batchsize", "bs", "mini_batch_size", "minibatch_size"),
        2,
        "samples in a mini-batch",
        "trades the noise of a step against steps per epoch",
        _halves_and_doubles,
        32,
    ),
    Documented(
        "hidden_units",
        ("d_model", "embed_dim", "embedding_dim", "embedding_size"),  # often to be divided by something else
        3,
        "size of the vectors that pass through the network",
        "sets the capacity of the network; doubling matters, adding one does not",
        _halves_and_doubles,
        128,
    ),
    Documented(
        "hidden_units",
        ("hidden_dim", "hidden_size", "hidden", "hidden_features", "n_hidden", "num_hidden", "dim_feedforward"),
        3,
        "units of each hidden layer",
        "sets the capacity of the network; doubling matters, adding one does not",
        _capacity,
        128,
    ),
    Documented(
        "momentum",
        ("sgd_momentum",),
        4,
        "filter coefficient β of the momentum",
        "averages over about 1/(1-β) gradients, so what matters is how close β is to 1",
        _towards_one(0.0, 0.999),
        0.9,
    ),
    Documented(
        "depth",
        ("num_layers", "n_layers", "num_hidden_layers", "n_hidden_layers", "hidden_layers", "num_blocks", "n_blocks"),
        5,
        "number of hidden layers",
        "more layers compose more features, and are harder to train",
        _layers,
        2,
    ),
    Documented(
        "lr_decay",
        ("lr_gamma", "learning_rate_decay", "decay_rate", "scheduler_gamma", "gamma_lr"),
        6,
        "coefficient of the learning rate's decay",
        "large steps at first, small ones near the optimum",
        _towards_one(0.5, 0.99),
        0.95,
    ),
    Documented(
        "adam_beta1",
        ("beta1", "beta_1", "b1"),
        7,
        "decay of Adam's mean of gradients",
        "seldom worth tuning; close to 1 like the momentum",
        _towards_one(0.5, 0.999),
        0.9,
    ),
    Documented(
        "adam_beta2",
        ("beta2", "beta_2", "b2"),
        7,
        "decay of Adam's mean of squared gradients",
        "seldom worth tuning; how long the scale of gradients is remembered",
        _towards_one(0.9, 0.9999),
        0.999,
    ),
    Documented(
        "adam_eps",
        ("eps", "epsilon", "adam_epsilon", "opt_eps"),
        7,
        "ε under Adam's fraction",
        "almost never matters; keeps tiny gradients from becoming large steps",
        _decades(100, 1e4, 1e-3),
        1e-8,
    ),
    Documented(
        "clip_norm",
        ("grad_clip", "gradient_clip", "gradient_clip_val", "max_grad_norm", "clip_grad_norm", "clip_value"),
        8,
        "norm to which gradients are clipped",
        "keeps single steps from destroying what was learnt; too small a norm slows training",
        _decades(10, 10),
        1.0,
    ),
    Documented(
        "activation",
        ("act", "nonlinearity", "activation_fn", "act_fn", "act_layer"),
        8,
        "nonlinearity of the hidden layers",
        "rectifiers keep gradients alive in depth, sigmoids do not",
        None,
        None,
    ),
    Documented(
        "norm",
        (
            "normalization",
            "normalisation",
            "norm_type",
            "norm_layer",
            "batch_norm",
            "use_bn",
            "batchnorm",
            "layer_norm",
        ),
        8,
        "normalisation of the hidden layers",
        "keeps the inputs of layers from drifting, so that larger steps work",
        None,
        None,
    ),
    Documented(
        "optimizer",
        ("optimiser", "optim", "opt", "optimizer_name", "optimizer_type"),
        8,
        "the descent",
        "adaptive ones fit the step to each weight, momentum often ends lower",
        None,
        None,
    ),
    Documented(
        "lr_schedule",
        ("scheduler", "lr_scheduler", "schedule", "scheduler_name", "scheduler_type"),
        8,
        "form of the learning rate's decay",
        "the coefficient matters more than the form",
        None,
        None,
    ),
    Documented(
        "nesterov",
        ("use_nesterov",),
        9,
        "whether momentum looks ahead along its own direction",
        "sometimes steadier at a high momentum, seldom worse",
        None,
        None,
    ),
    Documented(
        "weight_decay",
        ("wd", "l2", "l2_reg", "l2_lambda", "l2_penalty"),
        9,
        "how strongly weights shrink",
        "regularises; its useful values span decades",
        _decades(1000, 100),
        1e-4,
    ),
    Documented(
        "penalty",
        ("l1", "l1_reg", "l1_lambda", "l1_penalty"),
        9,
        "strength of the penalty on the weights",
        "regularises when the network overfits; its useful values span decades",
        _decades(1000, 100),
        1e-5,
    ),
    Documented(
        "dropout",
        (
            "p_dropout",
            "dropout_p",
            "dropout_rate",
            "dropout_prob",
            "drop_prob",
            "drop_rate",
            "p_drop",
            "dropout_probability",
        ),
        9,
        "probability with which a unit is dropped in training",
        "regularises when the network overfits",
        _share(0.6),
        0.1,
    ),
    Documented(
        "label_smoothing",
        ("smoothing",),
        9,
        "how much of a label is spread over the other classes",
        "regularises a classifier that is too sure of itself",
        _share(0.3),
        0.1,
    ),
)

_BY_NAME: Mapping[str, Documented] = {name: row for row in _TABLE for name in (row.name, *row.aliases)}
_ENDINGS = ("learning_rate", "lr", "hidden_dim", "hidden_size", "num_layers", "dropout", "weight_decay")
"""Names that mean the same behind another word: `encoder_lr`, `decoder_dropout`."""
