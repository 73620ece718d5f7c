"""What nets are trained for: a task gives the loss, the metrics, and what counts as best."""
