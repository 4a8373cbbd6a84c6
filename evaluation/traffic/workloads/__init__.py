"""One module a workload: the pure decision of the next operation. Names: `evaluation.history.WORKLOADS`."""
