"""The systems under test, each real, behind one small interface (`evaluation.systems.interface`)."""
