"""Replication of a report that segments lower-grade gliomas in MRI slices with an enhanced U-Net.

One module a chapter: data and phantom, preprocess, augment and ablation, model, train and metrics,
evaluate, results. Import the module you need; importing the package alone loads nothing heavy.
"""

__version__ = "0.1.0"
