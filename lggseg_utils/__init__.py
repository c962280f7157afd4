"""Replication of a report that segments lower-grade gliomas in MRI slices with an enhanced U-Net.

One module a chapter: data and phantom, preprocess, augment and ablation, model, train and metrics,
evaluate, results, with records and findings behind it. Import the module you need; importing the package alone loads nothing heavy.
"""

import os

# Read by OpenCV when it is first imported: what claims to be larger is refused before memory is set aside for it.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(4096 * 4096))

__version__ = "0.1.0"
