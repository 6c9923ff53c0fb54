"""slicfast: a high-throughput, data-loading-centric trainer for self-supervised video."""

__version__ = "0.1.0"
