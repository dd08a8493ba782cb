"""Data modules that hold their tensors in memory; every test split stays unseen by trials."""

from tuner.data.digits import Digits
from tuner.data.in_memory import InMemory
from tuner.data.loader import TensorLoader

__all__ = ["Digits", "InMemory", "TensorLoader"]
