"""The record on disk: its features, and readers of it as arrays and as tf.data batches."""
