"""Data modules that hold their tensors in memory; every test split stays unseen by trials."""

from tuner.data.arrays import Arrays
from tuner.data.digits import Digits
from tuner.data.image_folder import ImageFolder
from tuner.data.in_memory import InMemory
from tuner.data.loader import TensorLoader
from tuner.data.mnist import Mnist
from tuner.data.sklearn_table import SklearnTable
from tuner.data.streams import Streams
from tuner.data.tabular import Tabular
from tuner.data.text import Text

__all__ = [
    "Arrays",
    "Digits",
    "ImageFolder",
    "InMemory",
    "Mnist",
    "SklearnTable",
    "Streams",
    "Tabular",
    "TensorLoader",
    "Text",
]
