"""The README as the wheel's metadata shows it: without links into the checkout, which lead nowhere on a package index."""

import re
from pathlib import Path

from setuptools import setup

RELATIVE = r"(?!https?://|#)[^)\s]+"


def for_index(readme: str) -> str:
    """Images of the checkout are left out, and its pages are named without a link."""
    without_images = re.sub(rf"^!\[[^\]]*\]\({RELATIVE}\)\n+", "", readme, flags=re.MULTILINE)
    return re.sub(rf"\[([^\]]*)\]\({RELATIVE}\)", r"\1", without_images)


if __name__ == "__main__":
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    setup(long_description=for_index(text), long_description_content_type="text/markdown")
