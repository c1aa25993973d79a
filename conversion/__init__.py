"""Offline: a TensorFlow 1.15 TPU artifact in, a bundle out. Uses TensorFlow, never ray."""
