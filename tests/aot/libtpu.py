"""Prints the requirement of libtpu that the installed JAX has."""

from importlib.metadata import requires

if __name__ == "__main__":
    (found,) = (text for text in requires("jax") or () if text.startswith("libtpu"))
    print(found.partition(";")[0].strip())
