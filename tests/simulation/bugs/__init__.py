"""Deliberate bugs by the part that has them; `tests.simulation.mutations` names them all."""
