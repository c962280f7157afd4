"""Replication of a report that segments lower-grade gliomas in MRI.

Importing the package alone loads nothing heavy.
"""

import os

__version__ = "0.2.0"

# TensorFlow uses oneDNN by itself only on processors with AVX-512; with AVX2 alone, it trains 1.4
# to 1.7 times as fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
