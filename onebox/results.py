"""A search's answer as a person reads it in a terminal."""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from onebox.client import Answer, Result, Span

EXCERPT = 240  # characters
BEFORE = 60  # characters shown before the first word that was looked for, where it is not at the beginning
INDENT = 10


def show(answer: Answer, console: Console) -> None:
    """The results, best first, each with its score, and what the reranker did."""
    for rank, result in enumerate(answer.results, 1):
        title = Text.assemble(f"{rank:>3}  {result.score:.3f}  ", marked(result.title, result.title_highlights, "bold"))
        console.print(title.append(f"  [{result.document_id}]", "dim"), soft_wrap=True, highlight=False)
        console.print(Padding(excerpt(result), (0, 0, 0, INDENT)))
    if not answer.results:
        console.print("  nothing found")
    ran = f"reranked {answer.candidates} candidates" if answer.reranked else f"not reranked: {answer.why}"
    console.print(f"  ({ran}; {answer.total_ms:.0f} ms)", highlight=False, markup=False)


def excerpt(result: Result) -> Text:
    """The part of a result's text that holds the first highlight."""
    text = marked("".join(" " if character.isspace() else character for character in result.text), result.highlights)
    first = result.highlights[0][0] if result.highlights else 0
    start = 0 if first < EXCERPT - BEFORE else result.text.rfind(" ", 0, first - BEFORE) + 1
    end = start + EXCERPT
    shown = text[start:end]
    return Text.assemble("…" if start else "", shown, "…" if end < len(result.text) else "")


def marked(text: str, spans: tuple[Span, ...], style: str = "") -> Text:
    styled = Text(text, style)
    for start, end in spans:
        styled.stylize("bold underline", start, end)
    return styled
