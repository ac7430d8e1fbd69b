"""An HTML page as its elements, and texts that try to become some."""

from html.parser import HTMLParser

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><svg onload=\"document.title='owned'\">",
    "</title></style></pre></details><script>document.title='owned'</script>",
    "--><!--<script>document.title='owned'</script>",
    "javascript:document.title='owned'",
    "\x1b[2J\x00\u202e\u2028\x85{{7*7}}${7*7}&lt;b&gt;",
]
# What a page may hold. Whatever else the parser meets was recorded.
ELEMENTS = {
    *(
        "html",
        "head",
        "link",
        "meta",
        "title",
        "style",
        "body",
        "script",
        "header",
        "main",
        "footer",
    ),
    *("h1", "h2", "h3", "h4", "p", "div", "span", "b", "br", "a", "pre", "mark", "kbd", "ul", "li"),
    *("table", "thead", "tbody", "tr", "th", "td", "label", "select", "option", "output", "figure"),
    *("figcaption", "g"),
    *("dl", "dt", "dd", "article", "details", "summary", "button", "input", "svg", "text", "rect"),
    *("nav", "ol", "small", "path", "dialog", "form", "img", "i"),
}
# Elements that HTML closes by itself, and what does so.
ENDS = {"dt": ("dt", "dd"), "dd": ("dt", "dd"), "li": ("li",)}


class Page(HTMLParser):
    """The elements of a page, their attributes, and the text of some."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.texts = [], [], {}
        self.open = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if self.open and tag in ENDS.get(self.open[-1], ()):
            self.open.pop()
        self.elements.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in ("meta", "link", "br", "input", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        if self.open[-1] in ENDS and tag != self.open[-1]:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
