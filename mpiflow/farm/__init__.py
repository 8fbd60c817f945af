"""The scheduler: pure bookkeeping, with no MPI, clock, thread or file in it."""
