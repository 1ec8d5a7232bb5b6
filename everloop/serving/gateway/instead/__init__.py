"""What answers when the chosen revision did not: steps in a declared order, a cache among them."""
