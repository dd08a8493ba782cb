"""LightningCLI's own parser and instantiators, kept for many configurations."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tuner.training.again import Again, form_of
from tuner.training.package import LIGHTNING, adapted, class_of, package_of, part_of

# What a trial needs nothing of, unless its study file asks for it; and it trains on one device, so that workers share.
LEAN_TRAINER: Mapping[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "devices": 1,
}


@dataclass(frozen=True)
class Parts:
    """What a trial trains.

    Attributes:
        module: the model.
        datamodule: the data, or None where the module has its own.
        config: the configuration with every argument of its classes filled in; of the trainer, what was asked for.
        arguments: all arguments of the trainer, as plain values.
    """

    module: L.LightningModule
    datamodule: L.LightningDataModule | None
    config: dict[str, Any]
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Built(Parts):
    """What a trial trains, and Lightning's Trainer for it."""

    trainer: L.Trainer


class Blueprint(LightningCLI):
    """Builds modules, data and trainers from configurations exactly as `LightningCLI(run=False)` does.

    The parsers are made once. The trainer has one of its own, because its forty arguments seldom change from trial to
    trial and checking them would cost more than all the rest. Modules built so keep hyperparameters from which
    `load_from_checkpoint` rebuilds them.

    Args:
        config: any valid configuration; it is parsed, not built.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        quiet_lightning()
        self._building = False
        self._packages = {part: _package_of(config.get(part)) for part in ("model", "data")}
        self._trainer_class = class_of(self._packages["model"], "Trainer")
        self._trainer_parser = LightningArgumentParser(exit_on_error=False)
        self._trainer_parser.add_class_arguments(
            self._trainer_class, "trainer", fail_untyped=False, instantiate=False, sub_configs=True
        )
        self._trainers: dict[str, tuple[Namespace, dict[str, Any]]] = {}
        self._again: dict[str, Again] = {}
        super().__init__(
            args=_without_trainer(config),
            run=False,
            save_config_callback=None,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=False,
            parser_kwargs={"exit_on_error": False},
        )
        self._building = True
        self.parsed_trainer(config.get("trainer", {}))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse a configuration; unlike the base class, never look at the program's own arguments."""
        self.config = parser.parse_object(args)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Model and data; the trainer has a parser of its own."""
        for part, base in self._bases().items():
            parser.add_subclass_arguments(base, part, fail_untyped=False, required=part == "model")

    def _add_instantiators(self) -> None:
        """Let each package keep hyperparameters in its own way, from which its own `load_from_checkpoint` builds."""
        for part, base in self._bases().items():
            keeping = part_of(self._packages[part], "cli", "_InstantiatorFn")
            self.parser.add_instantiator(keeping(cli=self, key=part), base, subclasses=True)

    def _bases(self) -> dict[str, type]:
        names = {"model": "LightningModule", "data": "LightningDataModule"}
        return {part: class_of(self._packages[part], name) for part, name in names.items()}

    def instantiate_classes(self) -> None:
        """Build nothing at construction: only `build` does."""
        if self._building:
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build no trainer with module and data: `trainer` does, for those who need one."""
        return None  # type: ignore[return-value]

    def build(self, config: Mapping[str, Any], callbacks: list[L.Callback]) -> Built:
        """Seed everything, then build module, data and trainer.

        Args:
            config: `seed_everything`, `model`, `data` and `trainer` as LightningCLI reads them.
            callbacks: added to those that the configuration names.
        """
        parts = self.parts(config)
        return Built(**vars(parts), trainer=self.trainer_for(config, callbacks))

    def parts(self, config: Mapping[str, Any]) -> Parts:
        """Seed everything, then build module and data.

        Args:
            config: as `build` takes it.
        """
        asked = config.get("trainer", {})
        _, arguments = self.parsed_trainer(asked)
        form = form_of(config)
        if form is not None and (again := self._again.get(form)) is not None:
            self.config_dump = again.filled(config)
            L.seed_everything(self.config_dump["seed_everything"], workers=True)
            return Parts(*again.build(self.config_dump), self._complete(asked), arguments)
        self.config = self.parser.parse_object(_without_trainer(config))
        self.__dict__.pop("config_dump", None)  # LightningCLI's cache of the configuration before
        self._set_seed()
        self.instantiate_classes()
        self._dump_config()
        if form is not None:
            owners = {"model": type(self.model), "data": type(self.datamodule)}
            if (again := Again(config, self.config_dump, owners)).works:
                self._again[form] = again
        return Parts(self.model, self.datamodule, self._complete(asked), arguments)

    def trainer_for(self, config: Mapping[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        """A trainer with callbacks of its own; building one draws no random numbers.

        Args:
            config: as `build` takes it.
            callbacks: added to those that the configuration names.
        """
        parsed, plain = self.parsed_trainer(config.get("trainer", {}))
        has_classes = "class_path" in json.dumps(plain, default=repr)
        arguments = (
            self._trainer_parser.instantiate_classes(parsed.clone())["trainer"].as_dict() if has_classes else plain
        )
        named = arguments.get("callbacks") or []
        ours = [adapted(callback, "Callback", self._packages["model"]) for callback in callbacks]
        named = [*(named if isinstance(named, list) else [named]), *ours]
        trainer: L.Trainer = self._trainer_class(**{**arguments, "callbacks": named})
        return trainer

    def parsed_trainer(self, asked: Mapping[str, Any]) -> tuple[Namespace, dict[str, Any]]:
        """The trainer's arguments, as the parser has them and as plain values; parsed once for equal ones."""
        key = json.dumps(asked, sort_keys=True, default=repr)
        if key not in self._trainers:
            parsed = self._trainer_parser.parse_object({"trainer": {**LEAN_TRAINER, **copy.deepcopy(dict(asked))}})
            dumped = yaml.safe_load(self._trainer_parser.dump(parsed, skip_none=False))["trainer"]
            self._trainers[key] = (parsed, dumped)
        return self._trainers[key]

    def _complete(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with complete init_args; of the trainer, only what was asked for."""
        filled: dict[str, Any] = copy.deepcopy(self.config_dump)
        complete = {"seed_everything": filled["seed_everything"], "model": filled["model"]}
        if filled.get("data") is not None:
            complete["data"] = filled["data"]
        _, plain = self.parsed_trainer(asked)
        complete["trainer"] = {key: copy.deepcopy(plain[key]) for key in asked}
        return complete


def quiet_lightning() -> None:
    """Silence Lightning's banners; its warnings still come."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Lightning's own use of what torch has deprecated: nothing a user could do about it.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)


def _package_of(described: Any) -> str:
    """The package that a described class comes from; what cannot be imported, the parser tells."""
    path = described.get("class_path", "") if isinstance(described, Mapping) else described
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module:
        return LIGHTNING
    try:
        owner = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return LIGHTNING
    return package_of(owner) if isinstance(owner, type) else LIGHTNING


def _without_trainer(config: Mapping[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({key: value for key, value in config.items() if key != "trainer"})
