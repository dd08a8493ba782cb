"""Optuna, Lightning and MLflow, as their users put them together.

An SQLite storage, the default sampler (TPE) and pruner (median), the pruning callback, `L.Trainer` on a LightningModule
and DataLoaders, and MLFlowLogger to an SQLite file. What only writes to the terminal or to checkpoints is off.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L
import optuna
import torch
from digits_mlp import WORST, Done, Task, build, decay, descent
from lightning.pytorch.loggers import MLFlowLogger
from optuna_hyperband import suggest
from optuna_integration import PyTorchLightningPruningCallback
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class MLP(L.LightningModule):
    """The network, its losses and its descent."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters(config)
        self.network = build(config["hidden_units"], config["depth"], config["dropout"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        loss = F.cross_entropy(self.network(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy of a batch."""
        x, y = batch
        logits = self.network(x)
        self.log("val_loss", F.cross_entropy(logits, y), prog_bar=True)
        self.log("val_acc", (logits.argmax(dim=1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """SGD with momentum and a decay."""
        h = self.hparams
        optimizer = descent(self.network, h["learning_rate"], h["momentum"], h["weight_decay"])
        return [optimizer], [decay(optimizer, h["lr_decay"])]


class Noting(L.Callback):
    """Notes the first step and every epoch; ends the process when the target is reached."""

    def __init__(self, task: Task, trial: int) -> None:
        self.task, self.trial = task, trial

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """A step begins."""
        self.task.step()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """An epoch is validated."""
        if trainer.sanity_checking:
            return
        loss, accuracy = (trainer.callback_metrics[name].item() for name in ("val_loss", "val_acc"))
        if self.task.report(self.trial, trainer.current_epoch + 1, loss, accuracy, pl_module.network):
            raise Done


def main() -> None:
    """Search until the target is reached."""
    task = Task.asked()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tracking = f"sqlite:///{task.folder}/mlflow.db"

    def objective(trial: optuna.Trial) -> float:
        config = {name: suggest(trial, name, asked) for name, asked in task.space.items()}
        L.seed_everything(task.seed_of(trial.number), verbose=False)
        train, val, _ = (TensorDataset(*part) for part in task.data)
        trainer = L.Trainer(
            max_epochs=task.epochs,
            accelerator="cpu",
            devices=1,
            logger=MLFlowLogger("digits", tracking_uri=tracking),
            callbacks=[Noting(task, trial.number), PyTorchLightningPruningCallback(trial, monitor="val_loss")],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        loaders = DataLoader(train, config["batch_size"], shuffle=True), DataLoader(val, len(val))
        trainer.fit(MLP(config), *loaders)
        loss = trainer.callback_metrics["val_loss"].item()
        return loss if loss < WORST else WORST

    torch.set_num_threads(1)
    study = optuna.create_study(
        study_name="digits",
        storage=f"sqlite:///{task.folder}/optuna.db",
        sampler=optuna.samplers.TPESampler(seed=task.seed),
    )
    study.optimize(objective)


if __name__ == "__main__":
    main()
