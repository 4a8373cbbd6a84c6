"""The parts of the checker, all pure: histories in, findings out; budgets are counts of steps, never time."""
