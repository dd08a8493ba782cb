"""The best configuration of a study, as objects that another project can use."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.best.checksums import check_sum
from tuner.best.formats import hydra, imported, lightning_cli
from tuner.errors import BestUnusable, NoBest
from tuner.space.yaml import write_yaml
from tuner.trial import Objective

if TYPE_CHECKING:
    from lightning import LightningDataModule, LightningModule

    from tuner.training.blueprint import Built


@dataclass(frozen=True)
class Best:
    """The best trial of a study.

    Attributes:
        study: the study's name; of a configuration that is only a file, the file's.
        trial: the trial's number; None for a configuration that is only a file.
        value: the objective with the trial's own seed; training `config` again gives it again. None as above.
        params: the searched values by config path.
        metrics: every metric at the best epoch.
        seeds: the confirming runs with new seeds: (seed, value).
        checkpoint: the best epoch's weights as a Lightning checkpoint; it may be missing. None where there is none.
        objective: what `value` is.
        epoch: the best epoch, counted from 1; its weights are the ones kept.
        is_function: whether the study tunes a plain function: there is no module then, only values.
    """

    study: str
    trial: int | None
    value: float | None
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    seeds: tuple[tuple[int, float], ...]
    checkpoint: Path | None
    _config: Mapping[str, Any]
    objective: Objective | None = None
    epoch: int | None = None
    is_function: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """The complete configuration as LightningCLI reads it: `seed_everything`, `model`, `data`, `trainer`."""
        return copy.deepcopy(dict(self._config))

    def to_yaml(self) -> str:
        """The configuration as YAML, and nothing else."""
        return write_yaml(self.config)

    def to_lightning_cli(self, *, fixed_classes: bool = False) -> str:
        """The configuration as YAML for `python main.py fit --config best.yaml`, with comments on where it comes from.

        Args:
            fixed_classes: for a program that names its classes, `LightningCLI(Model, Data)`: it reads arguments only.
        """
        self._check_module()
        return self._header() + write_yaml(lightning_cli(self.config, fixed_classes=fixed_classes))

    def to_hydra(self) -> str:
        """The configuration as YAML for `hydra.utils.instantiate`: a tree of `_target_`. It imports the classes."""
        self._check_module()
        use = (
            "# L.seed_everything(cfg.seed_everything, workers=True); made = hydra.utils.instantiate(cfg)\n"
            f"# made.trainer.fit(made.model{', made.data' if self._config.get('data') else ''})\n"
        )
        return self._header() + use + write_yaml(hydra(self.config))

    def module(self) -> LightningModule:
        """A fresh module with the best hyperparameters; its network has the shapes of the study's data."""
        from tuner.models import Network  # torch and lightning are only loaded when they are needed

        module = self._build("model").module
        if not isinstance(module, Network) or module.net is not None:
            return module
        built = self._build("model", "data")
        if isinstance(built.module, Network):
            built.module.adopt(**built.module.shapes_of(built.datamodule))
        return built.module

    def trained_module(self) -> LightningModule:
        """The module with the weights of the best epoch, in evaluation mode.

        Raises:
            NoBest: there are no weights on this machine.
            BestUnusable: the file was changed, or holds more than weights and plain values, so it is not read.
        """
        self._check_module()
        if self.checkpoint is None:
            raise NoBest(f"{self.study} is a configuration without weights. Train it: tuner train {self.study}")
        if not self.checkpoint.is_file():
            raise NoBest(
                f"the weights of {self.study}'s trial {self.trial} are not at {self.checkpoint}. "
                "They lie in TUNER_HOME of the machine that trained it; copy them, or train `config` again."
            )
        check_sum(self.checkpoint)
        return self._with_weights(_read(self.checkpoint))

    def datamodule(self) -> LightningDataModule | None:
        """The data module of the study with the best hyperparameters (its batch size), or None if it has none."""
        return self._build("model", "data").datamodule

    def _header(self) -> str:
        """Where the configuration comes from, as comments."""
        if self.trial is None or self.objective is None:
            return ""
        of = f" of {epochs}" if (epochs := self._config.get("trainer", {}).get("max_epochs")) else ""
        lines = [f"study {self.study}, trial {self.trial}: {self.objective.metric} {self.value:.6g}"]
        if self.epoch is not None:
            lines[0] += f" at epoch {self.epoch}{of}, whose weights were kept"
        return "".join(f"# {line}\n" for line in lines)

    def _with_weights(self, checkpoint: Mapping[str, Any]) -> LightningModule:
        """The module as it was when the checkpoint was saved.

        Its hyperparameters may have changed since it was built (shapes that came from the data), so they outrank the
        configuration, which has what they leave out (`save_hyperparameters(ignore=["net"])`).
        """
        from lightning.pytorch.utilities.seed import isolate_rng

        described, saved = self._config["model"], checkpoint.get("hyper_parameters", {})
        owner: Any = imported(described["class_path"])
        with isolate_rng():
            module: LightningModule
            if "_instantiator" not in saved or not hasattr(owner, "load_from_checkpoint"):
                module = self._build("model").module
                module.on_load_checkpoint(dict(checkpoint))
                module.load_state_dict(checkpoint["state_dict"])
                return module.eval()
            left_out = {name: value for name, value in described.get("init_args", {}).items() if name not in saved}
            module = owner.load_from_checkpoint(
                self.checkpoint, map_location="cpu", weights_only=True, **copy.deepcopy(left_out)
            )
            return module.eval()

    def _check_module(self) -> None:
        """Check that there is a module.

        Raises:
            BestUnusable: the study tunes a plain function.
        """
        if self.is_function:
            raise BestUnusable(
                f"the best of {self.study} must have a LightningModule for that, but it tunes a plain function: take "
                f"its values from tuner.load_best({self.study!r}).params."
            )

    def _build(self, *parts: str) -> Built:
        self._check_module()
        from lightning.pytorch.utilities.seed import isolate_rng

        from tuner.training.blueprint import Blueprint

        config = {"seed_everything": 0, **{k: v for k, v in self.config.items() if k in ("seed_everything", *parts)}}
        with isolate_rng():  # looking at a best must not change what the caller's program draws next
            return Blueprint(config).build(config, callbacks=[])


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint of weights and plain values.

    Raises:
        BestUnusable: it holds more.
    """
    import torch

    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BestUnusable(
            f"{path} must hold weights and plain values only, but holds objects that run code when they are read. "
            "Do not use it, or, if its module saved them as hyperparameters, leave them out there "
            "(save_hyperparameters(ignore=[…])) and train again."
        ) from error
    return checkpoint
