"""The best configuration of a study, as objects that another project can use."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import NoBest
from tuner.space.yaml import write_yaml

if TYPE_CHECKING:
    from lightning import LightningDataModule, LightningModule

    from tuner.training.blueprint import Built


@dataclass(frozen=True)
class Best:
    """The best trial of a study.

    Attributes:
        study: the study's name.
        trial: the trial's number.
        value: the objective with the trial's own seed; training `config` again gives it again.
        params: the searched values by config path.
        metrics: every metric at the best epoch.
        seeds: the confirming runs with new seeds: (seed, value).
        checkpoint: the best epoch's weights as a Lightning checkpoint; it may be missing.
    """

    study: str
    trial: int
    value: float
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    seeds: tuple[tuple[int, float], ...]
    checkpoint: Path
    _config: Mapping[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The complete configuration as LightningCLI reads it: `seed_everything`, `model`, `data`, `trainer`."""
        return copy.deepcopy(dict(self._config))

    def to_yaml(self) -> str:
        """The configuration as YAML, for `python main.py fit --config best.yaml`."""
        return write_yaml(self.config)

    def module(self) -> LightningModule:
        """A fresh module with the best hyperparameters; its network has the shapes of the study's data."""
        from tuner.models import Network  # torch and lightning are only loaded when they are needed

        built = self._build()
        if isinstance(built.module, Network):
            built.module.adopt(**built.module.shapes_of(built.datamodule))
        return built.module

    def trained_module(self) -> LightningModule:
        """The module with the weights of the best epoch, in evaluation mode.

        Raises:
            NoBest: the checkpoint is not on this machine.
        """
        if not self.checkpoint.is_file():
            raise NoBest(
                f"the weights of {self.study}'s trial {self.trial} are not at {self.checkpoint}. "
                "They lie in TUNER_HOME of the machine that trained it; copy them, or train `config` again."
            )
        owner = type(self._build().module)
        return owner.load_from_checkpoint(self.checkpoint, map_location="cpu", weights_only=True).eval()

    def datamodule(self) -> LightningDataModule | None:
        """The data module of the study with the best hyperparameters (its batch size), or None if it has none."""
        return self._build().datamodule

    def _build(self) -> Built:
        from lightning.pytorch.utilities.seed import isolate_rng

        from tuner.training.blueprint import Blueprint

        config = self.config
        config["trainer"] = {}
        with isolate_rng():  # looking at a best must not change what the caller's program draws next
            return Blueprint(config).build(config, callbacks=[])
