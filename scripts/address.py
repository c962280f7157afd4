"""Set the repository's address after a fork, in _config.yml and in every notebook's Colab cell:
python scripts/address.py URL
"""

import click
import yaml

from lggseg_utils import book, chapters


@click.command()
@click.argument("url")
def main(url):
    """Replace the address wherever it is written."""
    old = yaml.safe_load(book.CONFIG.read_text(encoding="utf-8"))["repository"]["url"]
    # The file with the old address comes last: after an interruption, the same command goes on.
    for path in (*chapters.chapters(), book.CONFIG):
        path.write_text(
            path.read_text(encoding="utf-8").replace(old, url.rstrip("/")), encoding="utf-8"
        )
    print(f"{old} is now {url}")


if __name__ == "__main__":
    main()
