"""What `python -m benchmarks` measures: every section against what others would use, in one run on one machine."""
