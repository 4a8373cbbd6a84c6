"""Parts of `evaluation.cost`: texts and vectors, loads, resources, and the commands an operator needs."""
