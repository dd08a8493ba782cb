"""The best of a study: chosen, confirmed with new seeds, and ready to be used elsewhere."""

from tuner.best.best import Best
from tuner.best.choose import Chosen, choose, confirmations, leading

__all__ = ["Best", "Chosen", "choose", "confirmations", "leading"]
