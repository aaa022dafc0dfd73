"""Helpers for *Feature Learning You Can Run*: data, networks, training, condensation, mean-field Langevin dynamics."""

from . import condensation, data, ensemble, flow, kernels, merging, mfld, networks, plots, training
from .history import History
from .mfld import MeanFieldLangevinClassifier
from .plots import style

__version__ = "1.0.0"
__all__ = ["History", "MeanFieldLangevinClassifier", "condensation", "data", "ensemble", "flow", "kernels"]
__all__ += ["merging", "mfld", "networks", "plots", "style", "training"]
