"""The verbs of `python -m experiments NAME VERB`, one file each."""
