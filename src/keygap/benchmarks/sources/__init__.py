"""The benchmarks, one file for each publisher."""
