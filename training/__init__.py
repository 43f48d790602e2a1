"""How the model in the box was made: prepare, train, evaluate, export."""
