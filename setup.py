"""Which packages are installed; all else is in pyproject.toml, which cannot add a folder to those that are found."""

from setuptools import find_packages, setup

# In a checkout the configs lie at the top, where they are read and copied; installed, they are inside the package.
setup(
    packages=[*find_packages(include=["resnet_jax*"]), "resnet_jax.configs"],
    package_dir={"resnet_jax.configs": "configs"},
)
