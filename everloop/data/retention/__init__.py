"""How long what is kept: rules, what they let go now, and letting it go."""
