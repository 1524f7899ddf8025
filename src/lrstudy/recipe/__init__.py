"""What a training is made of: configuration, cells, data sets, networks and optimizers; and its identity."""
