"""Three unmodified Chroma servers made to look like one by a balancer and an agent that copies between them.

What teams build at home when one server is not enough. Nothing here is a straw man: merges happen at the
member under a lock, tombstones and causal contexts are kept where the strategy has them. What is lost is
lost because two servers acknowledged writes that neither had shown the other.
"""
