"""What a metric lost by: recorded factors swapped between two versions, by running again, with noise kept apart."""
