"""Replication of a report that segments lower-grade gliomas in MRI slices with an enhanced U-Net.

Import the module you need; importing the package alone loads nothing heavy.
"""

__version__ = "0.2.0"
