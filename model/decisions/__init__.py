"""From probabilities to decisions about parts, and whether a lot looks as usual."""
