"""`everloop ci`: everything that a team's CI asks of a project, in one run, with a report and an exit code."""
