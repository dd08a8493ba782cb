"""Lightning's own machinery that the lean loop uses, in one place, because some of it is private to Lightning."""

from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.fabric.utilities.data import _set_sampler_epoch as set_sampler_epoch
from lightning.fabric.utilities.device_parser import _select_auto_accelerator as select_auto_accelerator
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.core.optimizer import (
    LightningOptimizer,
    _configure_optimizers,
    _configure_schedulers_automatic_opt,
    _validate_multiple_optimizers_support,
    _validate_optimizers_attached,
    _validate_scheduler_api,
)
from lightning.pytorch.loops.utilities import _verify_dataloader_idx_requirement
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer.connectors.accelerator_connector import _set_torch_flags as set_torch_flags
from lightning.pytorch.trainer.connectors.logger_connector.fx_validator import _FxValidator
from lightning.pytorch.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.parsing import clean_namespace
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning.pytorch.utilities.types import LRSchedulerConfig

__all__ = [
    "GradClipAlgorithmType",
    "LRSchedulerConfig",
    "LightningOptimizer",
    "MisconfigurationException",
    "Precision",
    "RunningStage",
    "SIGTERMException",
    "TrainerFn",
    "TrainerState",
    "TrainerStatus",
    "_FxValidator",
    "_configure_optimizers",
    "_configure_schedulers_automatic_opt",
    "_validate_multiple_optimizers_support",
    "_validate_optimizers_attached",
    "_validate_scheduler_api",
    "_verify_dataloader_idx_requirement",
    "clean_namespace",
    "extract_batch_size",
    "is_overridden",
    "is_param_in_hook_signature",
    "move_data_to_device",
    "select_auto_accelerator",
    "set_sampler_epoch",
    "set_torch_flags",
]
