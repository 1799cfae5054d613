"""The Keras network: backbones, first weights, files."""
