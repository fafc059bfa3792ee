"""The pages of the documentation, their code blocks, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted({README, ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")})
GENERATED = ("cli.md", "api.md")
FENCE = re.compile(
    r"^(?:<!-- test: ([^\n]+) -->\n)?```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: The file.
        mark: What a comment in front of the block, `<!-- test: MARK -->`, says; else empty.
        language: The word behind the opening fence.
        text: The content.
    """

    page: Path
    mark: str
    language: str
    text: str


BLOCKS = [
    Block(page, match[1] or "", match[2].strip(), match[3])
    for page in PAGES
    for match in FENCE.finditer(page.read_text(encoding="utf-8"))
]
SHELL = [
    block for block in BLOCKS if block.language in ("sh", "") and block.page.name not in GENERATED
]


def commands_in(block: Block) -> list[list[str]]:
    """Return the arguments of every `mobiledeploy ...` in a shell block."""
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        simple: list[list[str]] = [[]]
        for token in lexer:
            if set(token) <= set("&|;<>()"):
                simple.append([])
            else:
                simple[-1].append(token)
        commands += [
            words[1:] for words in simple if words and Path(words[0]).name == "mobiledeploy"
        ]
    return commands
