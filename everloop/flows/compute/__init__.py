"""What steps run on, what they used, what that cost, and the budgets that stop them."""
