"""Replication of a report that segments lower-grade gliomas in MRI; importing the package alone loads nothing heavy."""

__version__ = "0.2.0"
