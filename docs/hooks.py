"""Hooks of mkdocs: API pages for the packages that there are, and pictures that lie outside docs/."""

import logging
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Docstrings write [steps][layers] of nested lists, which autorefs takes for a link. None has a link of that form.
logging.getLogger("mkdocs.plugins.mkdocs_autorefs").setLevel(logging.ERROR)

PICTURES = sorted((ROOT / "results").glob("*/*.png"))


def _packages() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "resnet_jax").glob("*/__init__.py"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the navigation's empty API section."""
    pages: list[dict[str, str]] = [{"resnet_jax": "api/index.md"}]
    pages += [{package: f"api/{package}.md"} for package in _packages()]
    assert config.nav is not None
    config.nav = [{"API": pages} if "API" in section else section for section in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each package, and the pictures of published runs under `pictures/`."""
    index = "# resnet_jax\n\n::: resnet_jax\n    options: {show_submodules: false}\n"
    files.append(File.generated(config, "api/index.md", content=index))
    for package in _packages():
        content = f"# {package}\n\n::: resnet_jax.{package}\n"
        files.append(File.generated(config, f"api/{package}.md", content=content))
    for picture in PICTURES:
        files.append(File.generated(config, f"pictures/{picture.relative_to(ROOT)}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: object) -> str:
    """Points pictures under results/ at their place in the site."""
    for up in ("../../", "../"):
        markdown = markdown.replace(f"]({up}results/", f"]({up.removesuffix('../')}pictures/results/")
    return markdown
