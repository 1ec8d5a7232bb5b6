"""What each input of a model adds to an answer: Shapley values, exact where the model's form allows it."""
