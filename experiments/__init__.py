"""The papers' experiments: which runs they are made of, and the commands that run and draw them."""
