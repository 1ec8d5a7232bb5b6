"""Tables of predictions, labels and alarms."""
