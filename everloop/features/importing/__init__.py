"""Feature definitions of other products as a project's file. `feast` asks Feast itself, in a process of its own."""
