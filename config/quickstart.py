"""All QED 2->2 diagrams on two CPU cores: data, training and evaluation in under 15 minutes."""
d_model = 128
