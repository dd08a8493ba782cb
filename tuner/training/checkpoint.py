"""A trial's best weights as a Lightning checkpoint, as `Trainer.save_checkpoint(weights_only=True)` writes it."""

from __future__ import annotations

from typing import Any

import lightning as L

from tuner.training.hooks import Hooks


def checkpoint_of(
    module: L.LightningModule, datamodule: L.LightningDataModule | None, epoch: int, global_step: int
) -> dict[str, Any]:
    """Weights and hyperparameters, from which `load_from_checkpoint` rebuilds the module.

    Args:
        module: with the weights to save.
        datamodule: whose hyperparameters and state are saved, too.
        epoch: how many epochs were trained.
        global_step: how many steps were taken.
    """
    checkpoint: dict[str, Any] = {
        "epoch": epoch,
        "global_step": global_step,
        "pytorch-lightning_version": L.__version__,
        "state_dict": module.state_dict(),
    }
    for owner in (module, datamodule):
        if owner is None or not owner.hparams:
            continue
        if hasattr(owner, "_hparams_name"):
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_NAME] = owner._hparams_name
        if type(owner.hparams).__module__.startswith("omegaconf"):
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = owner.hparams
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_TYPE] = type(owner.hparams)
        else:
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = dict(owner.hparams)
    hooks = Hooks(module, datamodule)
    if state := hooks.call_data("state_dict"):
        checkpoint[type(datamodule).__qualname__] = state
    hooks.call("on_save_checkpoint", checkpoint)
    return checkpoint
