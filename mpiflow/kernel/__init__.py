"""The DataFlowKernel: the graph of tasks, and who drives it."""
