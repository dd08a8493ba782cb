"""Networks that take the documented hyperparameters by the documented names; usable without the rest of tuner."""

from tuner.models.classifier import Classifier
from tuner.models.densenet import DenseNet
from tuner.models.language_model import LanguageModel
from tuner.models.layer_statistics import LayerStatistics
from tuner.models.lenet import LeNet
from tuner.models.mlp import MLP, MLPRegressor
from tuner.models.network import Network
from tuner.models.regressor import Regressor
from tuner.models.resnet import ResNet
from tuner.models.rnn import RNNLanguageModel

__all__ = [
    "MLP",
    "Classifier",
    "DenseNet",
    "LanguageModel",
    "LayerStatistics",
    "LeNet",
    "MLPRegressor",
    "Network",
    "RNNLanguageModel",
    "Regressor",
    "ResNet",
]
