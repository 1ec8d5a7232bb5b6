"""What stays of mutable things: `seals` of runs, and in `removal` what was deleted and whose bytes may go."""
