"""What experiments are made of: scales, data, training settings, rounds. Imports no experiment."""
