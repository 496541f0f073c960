"""Every figure of parallelz, beside its peers, in one run: `python -m benchmarks`."""
