"""How each kind of fault is brought about, proven to bite, and taken away (names: `catalogue`)."""
