"""Parse HTML pages: tags, attributes, texts and the texts of charts."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page that was parsed.

    Attributes:
        tags: (name, attributes) in order.
        open: Names of tags that were never closed.
        text: What the page shows, charts and tooltips included.
    """

    VOID = frozenset({"meta", "img", "br", "wbr", "input"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()

    @property
    def text(self):
        return "".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def check_self_contained(html):
    """Check that a page is well-formed, runs no script and requests nothing."""
    page = Page(html)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,")), tag
    assert "url(" not in html.replace("url(#", "")
    assert "@import" not in html
    policies = [a["content"] for tag, a in page.tags if "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    return page
