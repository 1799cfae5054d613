"""Finished artefacts: folders that appear whole, with a manifest as their commit mark."""
