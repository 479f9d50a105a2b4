"""How TensorFlow is had: quietly. It never gives its memory back, so it is for child processes."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from edgeloop.errors import MissingExtra


def load_tensorflow() -> tuple[Any, Any]:
    """TensorFlow and Keras, imported without a word on stderr. Raises MissingExtra when not installed."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras
            import tensorflow as tf
    except ImportError as missing:
        raise MissingExtra(missing.name or "tensorflow", "train") from missing
    return tf, keras
