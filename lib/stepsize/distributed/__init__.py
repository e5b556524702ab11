"""More than one process: executors for sweeps, and data-parallel training."""
