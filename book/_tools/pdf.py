"""Print the whole book into one PDF: contents, bookmarks, all code, all hints open.

usage: pdf.py                    writes _build/feature-learning.pdf

Sphinx writes the book as a single page, and a headless Chromium prints it with the print rules of book/_static/fl.css.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--no-pdf-header-footer",
         "--generate-pdf-document-outline", "--virtual-time-budget=60000"]  # fmt: skip


def single_page(folder):
    """Build the book as one page below `folder`; return its path."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", ROOT, "--toc", ROOT / "book/_toc.yml"]
    command += ["-n", "-W", "--keep-going", "--builder", "singlehtml", "--path-output", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    out = folder / "_build" / "singlehtml"
    page = for_paper((out / "book" / "intro.html").read_text(encoding="utf8"))
    (out / "all.html").write_text(page, encoding="utf8")  # where its pictures and styles are
    return out / "all.html"


def for_paper(page):
    """The page without scripts, with everything open that opens on demand, but for code that teaches nothing."""
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    page = page.replace(' loading="lazy"', "")
    page = re.sub(r"<details(?![^>]*\bopen\b)", "<details open", page)
    return page.replace("<body", '<body class="fl-book"', 1)


def main():
    """Build and print; the exit status says whether there is a PDF."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"a Chromium is needed to print the book; looked for {', '.join(BROWSERS)}", file=sys.stderr)
        return 1
    target = ROOT / "_build" / "feature-learning.pdf"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = single_page(Path(folder) / "book")
        own = [f"--user-data-dir={folder}/profile", f"--print-to-pdf={folder}/book.pdf", page.as_uri()]
        run = subprocess.run([browser, *FLAGS, *own], check=False, capture_output=True, text=True)
        if run.returncode or not Path(folder, "book.pdf").exists():
            print(run.stderr, file=sys.stderr)
            return 1
        shutil.move(f"{folder}/book.pdf", target)
    print(f"The book is printed: {target}, {target.stat().st_size / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
