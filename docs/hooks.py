"""What mkdocs does with the pages of notebooks: their style comes once, from a file, and their scripts go."""

import re

EACH = re.compile(r"<(script|style)\b.*?</\1>", re.S)
COPY = re.compile(r'<div class="zeroclipboard-container">.*?</clipboard-copy>\s*</div>', re.S)


def on_page_content(html: str, page, config, files) -> str:
    """Leave out what every notebook brings again; the button to copy needs one of those scripts."""
    return COPY.sub("", EACH.sub("", html)) if page.file.src_uri.endswith(".ipynb") else html
