"""What a system costs: texts and vectors, loads, resources, and the commands an operator needs."""
